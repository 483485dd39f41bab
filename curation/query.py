"""Boolean queries over entities: `cat and (sofa or bed) and not dog`. `not` binds closest, then `and`, then `or`."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

_TOKEN = re.compile(r'\(|\)|"[^"]*"|[^\s()"]+|"')
_KEYWORDS = ("and", "or", "not", "(", ")")


@dataclass(frozen=True)
class Named:
    """Captions that name an entity."""

    entity: str


@dataclass(frozen=True)
class Not:
    """Captions that the inner query does not hit."""

    inner: Query


@dataclass(frozen=True)
class And:
    """Captions that both queries hit."""

    left: Query
    right: Query


@dataclass(frozen=True)
class Or:
    """Captions that one of the queries hits, or both."""

    left: Query
    right: Query


Query = Named | Not | And | Or


def parse_query(text: str, entity_of: Callable[[str], str]) -> Query:
    """Return the query that a text means; `entity_of` gives the entity of a word, or raises ValueError.

    Neighbouring words are one name ("hot dog"); a name in double quotes may hold `and`, `or` and `not`.

    Raises: ValueError that points at the character where the text makes no sense, or names no entity.
    """
    parser = _Parser(text, entity_of)
    query = parser.either()
    if parser.token is not None:
        raise parser.error("expected 'and', 'or' or the end" if parser.token != ")" else "no '(' is open here")
    return query


class _Parser:
    def __init__(self, text: str, entity_of: Callable[[str], str]) -> None:
        self.text = text
        self.entity_of = entity_of
        self.tokens = [(match.group(), match.start()) for match in _TOKEN.finditer(text)]
        self.at = 0

    @property
    def token(self) -> str | None:
        """The next token, keywords in lower case; None at the end."""
        if self.at == len(self.tokens):
            return None
        token = self.tokens[self.at][0]
        return token.lower() if token.lower() in _KEYWORDS else token

    def either(self) -> Query:
        query = self.both()
        while self.takes("or"):
            query = Or(query, self.both())
        return query

    def both(self) -> Query:
        query = self.unary()
        while self.takes("and"):
            query = And(query, self.unary())
        return query

    def unary(self) -> Query:
        if self.takes("not"):
            return Not(self.unary())
        if self.takes("("):
            opened = self.at - 1
            query = self.either()
            if not self.takes(")"):
                raise self.error("this '(' is not closed" if self.token is None else "expected ')'", opened)
            return query
        return self.name()

    def name(self) -> Named:
        first = self.at
        if self.token is None or self.token in _KEYWORDS:
            raise self.error("expected an entity, 'not' or '('")
        if self.token == '"':
            raise self.error("this quote is not closed")
        while self.token not in (None, '"', *_KEYWORDS):
            self.at += 1
        word = " ".join(token.strip('"') for token, _ in self.tokens[first : self.at])
        try:
            return Named(self.entity_of(word))
        except ValueError as error:
            raise self.error(str(error), first) from error

    def takes(self, keyword: str) -> bool:
        """Step over a keyword if it comes next."""
        if self.token != keyword:
            return False
        self.at += 1
        return True

    def error(self, message: str, at: int | None = None) -> ValueError:
        """Return an error that points at a token, by default the next one."""
        position = self.at if at is None else at
        start = self.tokens[position][1] if position < len(self.tokens) else len(self.text)
        return ValueError(f"query, character {start + 1}: {message}\n  {self.text}\n  {' ' * start}^")
