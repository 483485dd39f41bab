"""Parse: which entities a caption names, and where. captions/ becomes entities/ and postings/.

The rule `spacy`: a form of the vocabulary, or its plural, counts where it stands as whole words and names its thing.
The phrases of the vocabulary's senses tell that, else the word must be used as a noun, which spaCy's tagger decides.
Captions without a form never reach it, nor do forms that are always nouns, and of the others it reads only the words
around the form. The rule `exact` is the published one. Whichever decides, the data card counts both.
"""

from __future__ import annotations

import itertools
import logging
import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.datacard import write_datacard
from curation.entities import ROW_GROUP_ROWS, VOCABULARY_NAME, write_postings
from curation.exact import ExactRule
from curation.manifest import Manifest, Part, close_stage, finished_part, open_stage, read_manifest, write_part
from curation.progress import Progress
from curation.schema import ENTITIES, NOUNS
from curation.tagger import SPACY_MODELS, Tagger, installed_model, is_noun
from curation.vocabulary import PERSON, Mention, Occurrence, Span, Vocabulary, vocabulary_path

__all__ = ["CaptionParser", "Mention", "ParseConfig", "PartJob", "Reading", "parse", "parse_part"]

logger = logging.getLogger(__name__)

NO_FORM = "no form of the vocabulary"
NO_NOUN = "no form that names its thing"

RULES = ("spacy", "exact")

_PERSON = re.compile(rf"\b{PERSON}\b", re.IGNORECASE)

MapParts = Callable[[Callable[["PartJob"], Part], Iterable["PartJob"]], Iterable[Part]]


@dataclass(frozen=True)
class ParseConfig:
    """How entities are found in captions."""

    vocabulary: str = "cc4m"
    """name of a packaged vocabulary, or path of a TOML file"""
    rule: Literal["spacy", "exact"] = "spacy"
    """spacy: forms and plurals in any case that name their thing; exact: as published, tokens that equal a form"""
    person: bool = False
    """"person" and CC12M's <PERSON> count as mentions of what the vocabulary takes the word for (rule spacy only)"""
    nouns: bool = False
    """write the spans of all nouns too, not only of those in the vocabulary"""
    spacy_models: tuple[str, ...] = SPACY_MODELS
    """English spaCy models; the first that is installed is used"""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(f"rule = {self.rule!r}: expected one of {', '.join(RULES)}")
        if self.person and self.rule == "exact":
            raise ValueError("person = True has no place in the published rule; set rule = spacy, or person = False")
        if not self.spacy_models:
            raise ValueError(f"spacy_models = (): expected a name or more, for example {', '.join(SPACY_MODELS)}")


class Reading(NamedTuple):
    """What the parser found in a caption."""

    mentions: list[Mention]
    """forms that name their thing, in order"""
    has_form: bool
    """a form stands in the caption, whatever it means there"""
    was_tagged: bool
    """the tagger was asked"""


class CaptionParser:
    """Finds the entities of a vocabulary in captions, by the rule `spacy`."""

    def __init__(self, vocabulary: Vocabulary, spacy_models: Sequence[str] = SPACY_MODELS) -> None:
        self.vocabulary = vocabulary
        self.tagger = Tagger(spacy_models)

    def parse(self, captions: Sequence[str]) -> list[list[Mention]]:
        """Return the mentions of each caption, in order; `caption[start:end]` is the word that names the entity."""
        return [reading.mentions for reading in self.read(captions)]

    def read(self, captions: Sequence[str]) -> list[Reading]:
        """Return the mentions of each caption, and how they were found."""
        found = [self.vocabulary.occurrences(caption) for caption in captions]
        asked = [(at, occurrence) for at, here in enumerate(found) for occurrence in here if occurrence.tests[0].nouns]
        nouns = self.tagger.nouns_near([(captions[at], _asked_span(occurrence)) for at, occurrence in asked])
        names = {
            (at, occurrence.mention): occurrence.names(partial(is_noun, near))
            for (at, occurrence), near in zip(asked, nouns, strict=True)
        }
        readings = []
        for at, here in enumerate(found):
            mentions = [o.mention for o in here if names.get((at, o.mention), o.tests[0].names)]
            was_tagged = any(occurrence.tests[0].nouns for occurrence in here)
            readings.append(Reading(mentions, bool(here), was_tagged))
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
    data_dir = data_dir.resolve()  # other machines work in other folders
    captions = read_manifest(data_dir / "captions")
    vocabulary = Vocabulary.load(config.vocabulary)
    if config.person:
        vocabulary.with_person()  # says now, and not in each part, when the vocabulary has no use for the word
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
    table = pq.read_table(job.data_dir / "captions" / job.name)
    captions = table["caption"].to_pylist()
    vocabulary = Vocabulary.load(folder / VOCABULARY_NAME)
    parser = CaptionParser(vocabulary.with_person() if job.config.person else vocabulary, job.config.spacy_models)
    readings = parser.read(captions)
    exact = ExactRule(vocabulary)
    by_rule = {
        "spacy": [reading.mentions for reading in readings],
        "exact": [
            exact.parse(caption) if reading.has_form else []
            for caption, reading in zip(captions, readings, strict=True)
        ],
    }
    mentions = by_rule[job.config.rule]
    kept = [at for at, found in enumerate(mentions) if found]
    rows = table.take(pa.array(kept, pa.int64()))
    nouns = parser.tagger.nouns([captions[at] for at in kept]) if job.config.nouns else None
    num_forms = sum(reading.has_form for reading in readings)
    counts = {
        "read": len(captions),
        "kept": len(kept),
        "mentions": sum(map(len, mentions)),
        "tagged": sum(reading.was_tagged for reading in readings),
        NO_FORM: len(captions) - num_forms,
        NO_NOUN: num_forms - len(kept),
        **_person_counts(captions, readings),
    }
    for rule, found in by_rule.items():
        counts |= _rule_counts(rule, table["key"], found)
    entities = _entities_table(rows, [mentions[at] for at in kept], nouns)
    return write_part(folder, job.name, entities, counts, row_group_size=ROW_GROUP_ROWS)


def _asked_span(occurrence: Occurrence) -> Span:
    """Return the text from the first to the last word that the tests ask about."""
    spans = [span for test in occurrence.tests for span in test.nouns]
    return min(start for start, _ in spans), max(end for _, end in spans)


def _person_counts(captions: list[str], readings: list[Reading]) -> dict[str, int]:
    """Return what the switch `person` is about: captions with the word, and those in which no other form is found."""
    num_person = num_alone = 0
    for caption, reading in zip(captions, readings, strict=True):
        if _PERSON.search(caption):
            num_person += 1
            num_alone += all(_PERSON.fullmatch(caption, m.start, m.end) for m in reading.mentions)
    return {"person": num_person, "person alone": num_alone}


def _rule_counts(rule: str, keys: pa.ChunkedArray, mentions: list[list[Mention]]) -> dict[str, int]:
    """Return captions and images kept under a rule, and the captions of each entity."""
    kept = pa.array([bool(found) for found in mentions])
    captions = Counter(entity for found in mentions for entity in {mention.entity for mention in found})
    return {
        f"{rule}: captions": pc.sum(kept).as_py() or 0,
        f"{rule}: images": pc.count_distinct(keys.filter(kept)).as_py(),
        **{f"{rule}: {entity}": count for entity, count in sorted(captions.items())},
    }


def _entities_table(captions: pa.Table, mentions: list[list[Mention]], nouns: list[list[Span]] | None) -> pa.Table:
    entities = [list(dict.fromkeys(mention.entity for mention in found)) for found in mentions]
    columns: list[Any] = [*captions.columns, pa.array(entities, ENTITIES.field("entities").type)]
    columns.append(_lists(mentions, ENTITIES.field("mentions").type))
    schema = ENTITIES
    if nouns is not None:
        columns.append(_lists(nouns, NOUNS.type))
        schema = schema.append(NOUNS)
    return pa.Table.from_arrays(columns, schema=schema)


def _lists(rows: list[list[Any]], kind: pa.ListType) -> pa.ListArray:
    """Return lists of structs from lists of tuples, column by column: several times faster than from dicts."""
    offsets = np.cumsum([0, *map(len, rows)])
    flat = [list(column) for column in zip(*itertools.chain.from_iterable(rows), strict=True)]
    fields = list(kind.value_type)
    arrays = [pa.array(column, field.type) for column, field in zip(flat or [[]] * len(fields), fields, strict=True)]
    structs = pa.StructArray.from_arrays(arrays, fields=fields)
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), structs)


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
        "captions that reached the tagger": counts["tagged"],
        "mentions": counts["mentions"],
        "captions with the word person": counts["person"],
        "captions with the word person and no other form": counts["person alone"],
    }
    what = ["captions", "images", *vocabulary.entities]
    rules = [{"what": name, **{rule: counts[f"{rule}: {name}"] for rule in RULES}} for name in what]
    drops = {reason: counts[reason] for reason in (NO_FORM, NO_NOUN)}
    write_datacard(folder, "Captions that name an entity", figures, drops, {"kept under each rule": rules})
