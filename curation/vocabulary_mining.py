"""Propose a vocabulary from a corpus' own nouns: the most frequent, those that name nothing visible marked."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from curation.manifest import read_manifest
from curation.progress import Progress
from curation.tagger import SPACY_MODELS, Tagger
from curation.vocabulary import plurals

NOT_VISUAL = Path(__file__).parent / "not_visual.toml"

_LETTERS = re.compile(r"[^\W\d_]{2,}")
_NUM_EXAMPLES = 2
_EXAMPLE_CHARS = 70


@dataclass
class Noun:
    """A noun of the corpus."""

    lemma: str
    """dictionary form"""
    captions: int = 0
    """captions that hold it, in any number"""
    surfaces: Counter[str] = field(default_factory=Counter)
    """lower-case surface -> captions"""
    examples: list[str] = field(default_factory=list)
    """the first captions that hold it"""

    @property
    def form(self) -> str:
        """The lemma, or the most frequent surface where the lemma is hardly ever written ("jeans", not "jean")."""
        surface, count = self.surfaces.most_common(1)[0]
        return self.lemma if self.surfaces[self.lemma] * 10 >= count else surface


def propose_vocabulary(
    data_dir: Path, top: int = 100, num_captions: int = 100_000, spacy_models: tuple[str, ...] = SPACY_MODELS
) -> str:
    """Return the TOML of a vocabulary to edit: the `top` most frequent nouns of captions/, with counts and examples.

    Nouns that name nothing visible stand there too, as comments with the reason, and do not count towards `top`.
    `num_captions` rows are read, evenly spread over the whole table, so the result is the same every time.
    """
    for name, value in (("top", top), ("num_captions", num_captions)):
        if value < 1:
            raise ValueError(f"{name} = {value}: expected 1 or more")
    nouns, num_read = _count(data_dir, num_captions, Tagger(spacy_models))
    reasons = _reasons()
    entities: list[str] = []
    listed: list[str] = []
    taken: set[str] = set()
    for noun in sorted(nouns, key=lambda noun: (-noun.captions, noun.lemma)):
        if len(entities) == top:
            break
        form = noun.form
        inflected = plurals(form) if form == noun.lemma else ()
        others = [word for word in dict.fromkeys([*inflected, *sorted(noun.surfaces)]) if word != form]
        if taken.intersection([form, *others]):
            continue
        lines = [f"# {noun.captions:,} captions"] + [f"#   {example}" for example in noun.examples]
        entry = _entry(form, [form])
        if reason := reasons.get(noun.lemma):
            listed += [*lines, f"# not proposed, {reason}: # {entry}", ""]
            continue
        taken.update([form, *others])
        entities.append(_entry(form, others))
        listed += [*lines, entry, ""]
    head = [
        f"# The most frequent nouns of {num_read:,} captions. To edit: remove what you do not want, join words of one",
        '# meaning (sofa = ["sofa", "couch"]), take one that was not proposed by removing what stands before it, add',
        "# senses (see vocabularies/cc4m.toml).",
        "",
        'name = "proposed"',
        f'source = "the {top} most frequent nouns of {num_read:,} captions, by spaCy"',
        "",
        "[entities]",
    ]
    return "\n".join([*head, *listed, "# form = its plurals", "[plurals]", *entities]) + "\n"


def _count(data_dir: Path, num_captions: int, tagger: Tagger) -> tuple[list[Noun], int]:
    captions = read_manifest(data_dir / "captions")
    step = math.ceil(captions.rows / num_captions) or 1
    nouns: dict[str, Noun] = {}
    num_seen = num_read = 0
    with Progress("vocabulary", captions.rows) as progress:
        for part in captions.parts:
            table = pq.read_table(data_dir / "captions" / part.name, columns=["caption"])
            texts = table["caption"].to_pylist()[-num_seen % step :: step]
            for text, found in zip(texts, tagger.lemmas(texts), strict=True):
                _add(nouns, text, [pair for pair in found if all(map(_LETTERS.fullmatch, pair))])
            num_read += len(texts)
            num_seen += part.rows
            progress.part(part.name, part.rows, len(texts), len(texts), {})
    return list(nouns.values()), num_read


def _add(nouns: dict[str, Noun], caption: str, found: list[tuple[str, str]]) -> None:
    for lemma in {lemma for lemma, _ in found}:
        noun = nouns.setdefault(lemma, Noun(lemma))
        noun.captions += 1
        if len(noun.examples) < _NUM_EXAMPLES:
            # In a comment, so without line breaks and control characters.
            printable = "".join(letter if letter.isprintable() else " " for letter in caption)
            noun.examples.append(" ".join(printable.split())[:_EXAMPLE_CHARS])
    for lemma, surface in set(found):
        nouns[lemma].surfaces[surface] += 1


def _entry(form: str, words: list[str]) -> str:
    # Strings of JSON are strings of TOML; other letters than ASCII's stand in a key in quotes only.
    key = form if form.isascii() else json.dumps(form, ensure_ascii=False)
    return f"{key} = {json.dumps(words, ensure_ascii=False)}"


def _reasons() -> dict[str, str]:
    content = tomllib.loads(NOT_VISUAL.read_text(encoding="utf-8"))
    return {word: reason for reason, words in content["words"].items() for word in words}
