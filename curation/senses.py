"""Senses: phrases that tell whether a form names its thing where it stands; a light blue dress shows no light.

A phrase is written in words around `_`, which stands for the form: "street _", "_ {colour}", "| _ <noun>".
`{colour}` is any word of the list of that name, `<noun>` any word that the tagger calls a noun, `|` the caption's edge
or punctuation. Words of a phrase stand side by side, joined by spaces, a hyphen or an apostrophe; case does not matter.
Of all phrases that fit, the longest decides.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

EDGE = "|"
FORM = "_"
NOUN = "<noun>"

NUMBERS = ("singular", "plural", "both")
OTHERWISE = ("noun", "other")

_LITERAL = re.compile(r"[^\W_]+")
_LIST = re.compile(r"\{(\w+)\}")

Words = tuple[str, ...]
Lists = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class Sense:
    """Phrases in which forms name their thing, and phrases in which they do not.

    Raises: ValueError that says what was found and what is expected.
    """

    forms: tuple[str, ...]
    """forms of the vocabulary that these phrases are about"""
    why: str
    """the reason, for people"""
    names: tuple[str, ...] = ()
    """phrases in which the form names its thing, whatever the tagger says"""
    other: tuple[str, ...] = ()
    """phrases in which it does not"""
    number: str = "both"
    """singular: only the form itself; plural: only its plurals; both"""
    otherwise: str = "noun"
    """what holds where no phrase fits. noun: it names the thing when it is used as a noun; other: it does not"""

    def __post_init__(self) -> None:
        if not self.forms:
            raise ValueError("forms = []: expected one form or more")
        if not (self.names or self.other):
            raise ValueError("names and other are empty: expected phrases in one of them")
        for name, value, known in (("number", self.number, NUMBERS), ("otherwise", self.otherwise, OTHERWISE)):
            if value not in known:
                raise ValueError(f"{name} = {value!r}: expected one of {', '.join(known)}")

    @classmethod
    def from_toml(cls, content: Any) -> Sense:
        """Return the sense of one [[senses]] entry."""
        if not isinstance(content, dict):
            raise ValueError(f"expected a table with forms, why, names, other; found {content!r}")
        known = [field.name for field in fields(cls)]
        if unknown := [key for key in content if key not in known]:
            raise ValueError(f"unknown key {', '.join(unknown)}; known are {', '.join(known)}")
        for key in ("forms", "why"):
            if key not in content:
                raise ValueError(f"{key} is missing; expected {key} = ...")
        for key, value in content.items():
            kind = list if key in ("forms", "names", "other") else str
            if not isinstance(value, kind) or (kind is list and not all(isinstance(word, str) for word in value)):
                raise ValueError(
                    f"{key}: expected {'a list of strings' if kind is list else 'a string'}, found {value!r}"
                )
        lists = {key: tuple(content.get(key, ())) for key in ("forms", "names", "other")}
        return cls(
            **lists,
            why=content["why"],
            number=content.get("number", cls.number),
            otherwise=content.get("otherwise", cls.otherwise),
        )


class Verdict(NamedTuple):
    """What a phrase says of an occurrence."""

    names: bool
    """the form names its thing"""
    nouns: tuple[int, ...]
    """words that must be nouns for the phrase to fit, counted from the form: -1 is the word before it, 1 the next"""


class _Shape(NamedTuple):
    """How the phrases of one table lie around the form."""

    before: int
    after: int
    nouns: tuple[int, ...]

    @property
    def rank(self) -> tuple[int, int]:
        return (-(self.before + self.after), len(self.nouns))


class Phrases:
    """The phrases about one surface, as one table per shape, longest first: a few look-ups judge an occurrence."""

    def __init__(self, senses: Sequence[Sense], lists: Lists) -> None:
        tables: dict[_Shape, dict[Words, bool]] = {}
        for sense in senses:
            # Where two phrases are the same, `names` is entered last and wins.
            for phrases, names in ((sense.other, False), (sense.names, True)):
                for phrase in phrases:
                    shape, all_words = _expand(phrase, lists)
                    tables.setdefault(shape, {}).update(dict.fromkeys(all_words, names))
        self._tables = sorted(tables.items(), key=lambda table: table[0].rank)
        self.before = max((shape.before for shape in tables), default=0)
        self.after = max((shape.after for shape in tables), default=0)
        self.otherwise_other = any(sense.otherwise == "other" for sense in senses)

    def judge(self, before: Sequence[str], after: Sequence[str]) -> list[Verdict]:
        """Return the verdicts of the phrases that fit, the longest first, up to the first that needs no tagger.

        `before` and `after` hold the neighbouring words in lower case, nearest first, and end with `|` at an edge.
        """
        verdicts = []
        for shape, table in self._tables:
            if shape.before <= len(before) and shape.after <= len(after):
                around = [(-1 - at, before[at]) for at in range(shape.before)]
                around += [(1 + at, after[at]) for at in range(shape.after)]
                names = table.get(tuple(word for at, word in around if at not in shape.nouns))
                if names is not None and not any(at in shape.nouns and word == EDGE for at, word in around):
                    verdicts.append(Verdict(names, shape.nouns))
                    if not shape.nouns:
                        break
        return verdicts


def _expand(phrase: str, lists: Lists) -> tuple[_Shape, list[Words]]:
    """Return the shape of a phrase and its words, nearest first on either side, for each choice from its lists."""
    tokens = phrase.split()
    if tokens.count(FORM) != 1:
        raise ValueError(f"phrase '{phrase}': expected one _ for the form, found {tokens.count(FORM)}")
    at = tokens.index(FORM)
    before, after = tokens[:at][::-1], tokens[at + 1 :]
    if not (before or after):
        raise ValueError(f"phrase '{phrase}': expected words around the _, found none; use otherwise for the rest")
    if EDGE in [*before[:-1], *after[:-1]]:
        raise ValueError(f"phrase '{phrase}': expected {EDGE} at an end only; nothing is read beyond it")
    places = [(-1 - number, token) for number, token in enumerate(before)]
    places += [(1 + number, token) for number, token in enumerate(after)]
    shape = _Shape(len(before), len(after), tuple(place for place, token in places if token == NOUN))
    choices = [_choices(phrase, token, lists) for _, token in places if token != NOUN]
    return shape, list(itertools.product(*choices))


def _choices(phrase: str, token: str, lists: Lists) -> list[str]:
    if named := _LIST.fullmatch(token):
        if named[1] not in lists:
            known = ", ".join(lists) or "none"
            raise ValueError(f"phrase '{phrase}': unknown list {token}; known are {known}")
        return [word.lower() for word in lists[named[1]]]
    if token != EDGE and not _LITERAL.fullmatch(token):
        raise ValueError(
            f"phrase '{phrase}': expected words, {{list}}, {NOUN}, {EDGE} or {FORM}, found '{token}' "
            f"(write a hyphen or an apostrophe as a space)"
        )
    return [token.lower()]
