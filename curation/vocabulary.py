"""Vocabularies: which words name which entity, and where a caption holds such a word.

A vocabulary is a TOML file (see vocabularies/cc4m.toml) of forms and the entities they stand for. Found are a form and
its plurals in any case, as whole words; the words of a longer form may be joined by spaces or hyphens ("T-shirt",
"t shirt", "t - shirt"). Whether a found word is used as a noun is decided elsewhere (curation/parse.py).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

PACKAGED = Path(__file__).parent / "vocabularies"

_WORD = re.compile(r"[^\W_]+")
_JOINT = re.compile(r"\s*[-\u2010-\u2014]?\s*")

Words = tuple[str, ...]


class Mention(NamedTuple):
    """An occurrence of an entity in a caption; offsets count characters, `end` is exclusive."""

    entity: str
    start: int
    end: int


@dataclass(frozen=True)
class Vocabulary:
    """Forms and the entities that they stand for.

    Raises: ValueError when a form stands for two entities, or a plural or query word belongs to none.
    """

    name: str
    """short name"""
    forms: Mapping[str, str]
    """form -> entity, in the order of the file"""
    plurals: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """form -> its plurals, where they do not follow the rule"""
    queries: Mapping[str, str] = field(default_factory=dict)
    """word -> entity, for words that are understood in queries and are no forms"""
    source: str = ""
    """where the words come from"""

    def __post_init__(self) -> None:
        for form in self.plurals:
            if form not in self.forms:
                raise ValueError(
                    f"vocabulary '{self.name}': plurals of '{form}', which is no form; add it to an entity"
                )
        for word, entity in self.queries.items():
            if entity not in self.entities:
                raise ValueError(f"vocabulary '{self.name}': query word '{word}' means '{entity}', which is no entity")
        _ = self._surfaces

    @classmethod
    def load(cls, name_or_path: str | Path) -> Vocabulary:
        """Return a packaged vocabulary by its name, or one of your own by the path of its TOML file."""
        path = vocabulary_path(name_or_path)
        try:
            return _from_toml(path.stem, tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValueError) as error:
            raise ValueError(f"{path}: {error}") from error

    @property
    def entities(self) -> list[str]:
        """Entities in the order of the file."""
        return list(dict.fromkeys(self.forms.values()))

    @property
    def digest(self) -> str:
        """Digest of all that decides what is found."""
        return xxhash.xxh3_128_hexdigest(repr((sorted(self._surfaces.items()), sorted(self.queries.items()))).encode())

    def entity(self, word: str) -> str:
        """Return the entity that a word (entity, form, plural or query word, in any case) stands for.

        Raises: ValueError that lists near words when it is unknown.
        """
        words = _words(word)
        if words in self._names:
            return self._names[words]
        near = difflib.get_close_matches(" ".join(words), [" ".join(name) for name in self._names])
        hint = f"near it: {', '.join(near)}" if near else f"entities are {', '.join(self.entities)}"
        raise ValueError(f"unknown word '{word}'; {hint}")

    def find(self, caption: str) -> list[Mention]:
        """Return every place where a form or its plural stands as whole words: from the left, the longest first."""
        if self._first_words.isdisjoint(_WORD.findall(caption.lower())):
            return []
        matches = list(_WORD.finditer(caption))
        words = [match.group().lower() for match in matches]
        mentions = []
        at = 0
        while at < len(words):
            length = self._longest(caption, matches, words, at)
            if length:
                entity = self._surfaces[tuple(words[at : at + length])]
                mentions.append(Mention(entity, matches[at].start(), matches[at + length - 1].end()))
            at += max(length, 1)
        return mentions

    def _longest(self, caption: str, matches: list[re.Match[str]], words: list[str], at: int) -> int:
        """Return how many words the longest surface that begins at word `at` has; 0 when none begins there."""
        for length in self._first_words_lengths.get(words[at], ()):
            run = tuple(words[at : at + length])
            joints = pairwise(matches[at : at + length])
            if len(run) == length and run in self._surfaces and all(_joined(caption, *joint) for joint in joints):
                return length
        return 0

    @cached_property
    def _surfaces(self) -> dict[Words, str]:
        """Lower-case words of every form and plural -> entity."""
        surfaces: dict[Words, str] = {}
        for form, entity in self.forms.items():
            for surface in (form, *self.plurals.get(form, _regular_plural(form))):
                words = _words(surface)
                if not words:
                    raise ValueError(f"vocabulary '{self.name}': form '{surface}' of '{entity}' holds no word")
                if surfaces.setdefault(words, entity) != entity:
                    raise ValueError(
                        f"vocabulary '{self.name}': '{surface}' stands for '{surfaces[words]}' and for '{entity}'; "
                        f"keep it in one of them"
                    )
        return surfaces

    @cached_property
    def _names(self) -> dict[Words, str]:
        queries = {_words(word): entity for word, entity in self.queries.items()}
        return {**queries, **self._surfaces, **{_words(entity): entity for entity in self.entities}}

    @cached_property
    def _first_words_lengths(self) -> dict[str, list[int]]:
        lengths: dict[str, set[int]] = {}
        for words in self._surfaces:
            lengths.setdefault(words[0], set()).add(len(words))
        return {word: sorted(found, reverse=True) for word, found in lengths.items()}

    @cached_property
    def _first_words(self) -> frozenset[str]:
        return frozenset(self._first_words_lengths)


def vocabulary_path(name_or_path: str | Path) -> Path:
    """Return the TOML file of a packaged vocabulary, or the path itself where there is a file.

    Raises: ValueError that lists the packaged vocabularies.
    """
    for path in (PACKAGED / f"{name_or_path}.toml", Path(name_or_path)):
        if path.is_file():
            return path
    known = ", ".join(sorted(file.stem for file in PACKAGED.glob("*.toml")))
    raise ValueError(f"vocabulary '{name_or_path}': not found; known are {known}, or give the path of a TOML file")


def _from_toml(stem: str, content: dict[str, Any]) -> Vocabulary:
    known = ("name", "source", "entities", "plurals", "queries")
    if unknown := [key for key in content if key not in known]:
        raise ValueError(f"unknown key {', '.join(unknown)}; known are {', '.join(known)}")
    entities = content.get("entities")
    if not isinstance(entities, dict) or not entities:
        raise ValueError('expected a table [entities] with a line like cat = ["cat", "kitten"] per entity, found none')
    forms: dict[str, str] = {}
    for entity, words in entities.items():
        for form in _strings(f"entities.{entity}", words, at_least=1):
            if forms.setdefault(form, entity) != entity:
                raise ValueError(f"form '{form}' stands for '{forms[form]}' and for '{entity}'; keep it in one of them")
    plurals = {form: tuple(_strings(f"plurals.{form}", words)) for form, words in content.get("plurals", {}).items()}
    name = str(content.get("name", stem))
    return Vocabulary(name, forms, plurals, content.get("queries", {}), str(content.get("source", "")))


def _joined(caption: str, left: re.Match[str], right: re.Match[str]) -> bool:
    return bool(_JOINT.fullmatch(caption, left.end(), right.start()))


def _strings(name: str, value: Any, at_least: int = 0) -> list[str]:
    if not isinstance(value, list) or len(value) < at_least or not all(isinstance(word, str) for word in value):
        raise ValueError(f'{name}: expected a list of words like ["cat", "kitten"], found {value!r}')
    return value


def _words(text: str) -> Words:
    return tuple(word.lower() for word in _WORD.findall(text))


def _regular_plural(form: str) -> tuple[str, ...]:
    lower = form.lower()
    if re.search(r"[^aeiou]y$", lower):
        return (form[:-1] + "ies",)
    return (form + ("es" if lower.endswith(("s", "x", "z", "ch", "sh")) else "s"),)
