"""Vocabularies: which words name which entity, and where a caption holds such a word.

A vocabulary is a TOML file (see vocabularies/cc4m.toml) of forms and the entities they stand for. Found are a form and
its plurals in any case, as whole words; the words of a longer form may be joined by spaces or hyphens ("T-shirt",
"t shirt", "t - shirt"). What the vocabulary knows of senses comes with each occurrence as tests; those that ask whether
a word is used as a noun are answered elsewhere (curation/tagger.py).
"""

from __future__ import annotations

import difflib
import functools
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import xxhash

from curation.senses import EDGE, Phrases, Sense

if TYPE_CHECKING:
    import inflect

PACKAGED = Path(__file__).parent / "vocabularies"

_WORD = re.compile(r"[^\W_]+")
_JOINT = re.compile(r"\s*[-\u2010-\u2014]?\s*")
_NEIGHBOURS = re.compile(r"\s*[-\u2010-\u2014'\u2019]?\s*")
# Around a word that stands by itself; anything else (an address, a file name) is left to the tagger's tokens.
_PLAIN_BEFORE = re.compile(r"(?:^|[\s\"'“‘(\[*#])$")
_PLAIN_AFTER = re.compile(r"(?=[\s\"'”’,;:!?)\]*]|\.(?:\s|$)|-\s|$)")

PERSON = "person"
"""The word, and CC12M's placeholder <PERSON>, that may count as a form."""

Words = tuple[str, ...]
Span = tuple[int, int]


class Mention(NamedTuple):
    """An occurrence of an entity in a caption; offsets count characters, `end` is exclusive."""

    entity: str
    start: int
    end: int


class Test(NamedTuple):
    """One condition on an occurrence: when all its words are used as nouns, it decides."""

    names: bool
    """the form names its thing"""
    nouns: tuple[Span, ...] = ()
    """spans of the words that must be used as nouns"""


class Occurrence(NamedTuple):
    """A place where a form stands, and the tests that tell whether it names its thing there."""

    mention: Mention
    tests: tuple[Test, ...]
    """the first that holds decides; the last one asks for no noun, so it always holds"""

    def names(self, is_noun: Callable[[Span], bool]) -> bool:
        """Return whether the form names its thing."""
        return next(test.names for test in self.tests if all(is_noun(span) for span in test.nouns))


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
    always_nouns: tuple[str, ...] = ()
    """forms that are nouns wherever they stand, so that no tagger need be asked"""
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """lists of words that phrases of the senses name as {list}"""
    senses: tuple[Sense, ...] = ()
    """phrases in which forms name their thing, or do not"""
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
        for form in self.always_nouns:
            if form not in self.forms:
                raise ValueError(f"always_nouns: '{form}' is no form; add it to an entity or remove it here")
        _ = self._surfaces, self._phrases

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
        parts = (self._surfaces, self.queries, dict.fromkeys(self.always_nouns), self.lists)
        content = repr(([sorted(part.items()) for part in parts], self.senses))
        return xxhash.xxh3_128_hexdigest(content.encode())

    def with_person(self) -> Vocabulary:
        """Return the vocabulary in which "person", so also <PERSON>, is a form of what it means in queries.

        Raises: ValueError when it means nothing in queries.
        """
        if PERSON in self.forms:
            return self
        if PERSON not in self.queries:
            raise ValueError(
                f"vocabulary '{self.name}': '{PERSON}' is no query word; "
                f'add a line like {PERSON} = "people" to [queries]'
            )
        return replace(
            self,
            forms={**self.forms, PERSON: self.queries[PERSON]},
            plurals={**self.plurals, PERSON: ("persons",)},
            always_nouns=(*self.always_nouns, PERSON),
        )

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
        return [occurrence.mention for occurrence in self.occurrences(caption)]

    def occurrences(self, caption: str) -> list[Occurrence]:
        """Return the same places with the tests that tell whether the form names its thing there."""
        if self._first_words.isdisjoint(_WORD.findall(caption.lower())):
            return []
        matches = list(_WORD.finditer(caption))
        words = [match.group().lower() for match in matches]
        found = []
        at = 0
        while at < len(words):
            length = self._longest(caption, matches, words, at)
            if length:
                found.append(self._occurrence(caption, matches, words, at, at + length))
            at += max(length, 1)
        return found

    def _occurrence(
        self, caption: str, matches: list[re.Match[str]], words: list[str], first: int, end: int
    ) -> Occurrence:
        surface = tuple(words[first:end])
        mention = Mention(self._surfaces[surface], matches[first].start(), matches[end - 1].end())
        own = (mention.start, mention.end)
        is_plain = _PLAIN_BEFORE.search(caption[: own[0]][-1:]) and _PLAIN_AFTER.match(caption, own[1])
        phrases = self._phrases.get(surface)
        tests = []
        if phrases and is_plain:
            before = list(_neighbours(caption, matches, words, range(first - 1, first - 1 - phrases.before, -1)))
            after = list(_neighbours(caption, matches, words, range(end, end + phrases.after)))
            for verdict in phrases.judge(before, after):
                spans = (matches[first + at if at < 0 else end - 1 + at].span() for at in verdict.nouns)
                tests.append(Test(verdict.names, tuple(spans)))
        if not (tests and not tests[-1].nouns):
            if phrases and phrases.otherwise_other:
                tests.append(Test(False))
            elif is_plain and surface in self._always_nouns:
                tests.append(Test(True))
            else:
                tests += [Test(True, (own,)), Test(False)]
        return Occurrence(mention, tuple(tests))

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
            for surface in (form, *self.plurals_of(form)):
                words = _words(surface)
                if not words:
                    raise ValueError(f"vocabulary '{self.name}': form '{surface}' of '{entity}' holds no word")
                if surfaces.setdefault(words, entity) != entity:
                    raise ValueError(
                        f"vocabulary '{self.name}': '{surface}' stands for '{surfaces[words]}' and for '{entity}'; "
                        f"keep it in one of them"
                    )
        return surfaces

    def plurals_of(self, form: str) -> tuple[str, ...]:
        """Return the plurals of a form: as listed, else by the inflect library."""
        return self.plurals[form] if form in self.plurals else plurals(form)

    @cached_property
    def _always_nouns(self) -> frozenset[Words]:
        return frozenset(_words(word) for form in self.always_nouns for word in (form, *self.plurals_of(form)))

    @cached_property
    def _phrases(self) -> dict[Words, Phrases]:
        """Lower-case words of every surface with senses -> its phrases."""
        senses: dict[Words, list[Sense]] = {}
        for number, sense in enumerate(self.senses, start=1):
            for form in sense.forms:
                if form not in self.forms:
                    raise ValueError(f"senses, entry {number}: '{form}' is no form; add it to an entity")
                surfaces = {"singular": (form,), "plural": self.plurals_of(form)}
                for surface in surfaces.get(sense.number, (form, *self.plurals_of(form))):
                    senses.setdefault(_words(surface), []).append(sense)
            try:
                Phrases([sense], self.lists)
            except ValueError as error:
                raise ValueError(f"senses, entry {number} ({', '.join(sense.forms)}): {error}") from error
        return {surface: Phrases(found, self.lists) for surface, found in senses.items()}

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
    known = ("name", "source", "entities", "plurals", "queries", "always_nouns", "lists", "senses")
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
    return Vocabulary(
        name=str(content.get("name", stem)),
        forms=forms,
        plurals={form: tuple(_strings(f"plurals.{form}", words)) for form, words in _table(content, "plurals").items()},
        queries=_table(content, "queries"),
        always_nouns=tuple(_strings("always_nouns", content.get("always_nouns", []))),
        lists={
            name: tuple(_strings(f"lists.{name}", words, at_least=1))
            for name, words in _table(content, "lists").items()
        },
        senses=tuple(_senses(content.get("senses", []))),
        source=str(content.get("source", "")),
    )


def _table(content: dict[str, Any], name: str) -> dict[str, Any]:
    table = content.get(name, {})
    if not isinstance(table, dict):
        raise ValueError(f"expected a table [{name}], found {table!r}")
    return table


def _senses(entries: Any) -> Iterator[Sense]:
    if not isinstance(entries, list):
        raise ValueError(f"expected tables [[senses]], found {entries!r}")
    for number, entry in enumerate(entries, start=1):
        try:
            yield Sense.from_toml(entry)
        except ValueError as error:
            raise ValueError(f"senses, entry {number}: {error}") from error


def _neighbours(caption: str, matches: list[re.Match[str]], words: list[str], places: Sequence[int]) -> Iterator[str]:
    """Yield the words at places, nearest first, while nothing but a joint stands between them; then an edge."""
    step = 1 if not places or places[0] <= places[-1] else -1
    for at in places:
        inner, outer = (at - 1, at) if step > 0 else (at, at + 1)
        if not 0 <= at < len(words) or not _NEIGHBOURS.fullmatch(caption, matches[inner].end(), matches[outer].start()):
            yield EDGE
            return
        yield words[at]


def _joined(caption: str, left: re.Match[str], right: re.Match[str]) -> bool:
    return bool(_JOINT.fullmatch(caption, left.end(), right.start()))


def _strings(name: str, value: Any, at_least: int = 0) -> list[str]:
    if not isinstance(value, list) or len(value) < at_least or not all(isinstance(word, str) for word in value):
        raise ValueError(f'{name}: expected a list of words like ["cat", "kitten"], found {value!r}')
    return value


def _words(text: str) -> Words:
    return tuple(word.lower() for word in _WORD.findall(text))


def plurals(form: str) -> tuple[str, ...]:
    """Return the plural of a singular by the inflect library; none where it is the word itself."""
    plural = _inflect().plural_noun(form)
    return () if plural == form else (plural,)


@functools.cache
def _inflect() -> inflect.engine:
    # Imported here, for it takes a second, and vocabularies that list their plurals need none.
    import inflect

    return inflect.engine()
