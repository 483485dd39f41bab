from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.query import And, Named, Not, Or, Query, parse_query

NAMES = ("cat", "dog", "hot dog", "salt and pepper")
cat, dog, sofa = Named("cat"), Named("dog"), Named("sofa")


def entity_of(word: str) -> str:
    if word.lower() not in (*NAMES, "sofa"):
        raise ValueError(f"unknown word '{word}'; near it: cat")
    return word.lower()


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("cat", cat),
        ("cat and dog or sofa", Or(And(cat, dog), sofa)),
        ("cat or dog and sofa", Or(cat, And(dog, sofa))),
        ("cat and (dog or sofa)", And(cat, Or(dog, sofa))),
        ("not cat and dog", And(Not(cat), dog)),
        ("not (cat and dog)", Not(And(cat, dog))),
        ("not not cat", Not(Not(cat))),
        ("Cat AND NOT Dog", And(cat, Not(dog))),
        ("((cat))and(dog)", And(cat, dog)),
        ("hot  dog or cat", Or(Named("hot dog"), cat)),
        ('"salt and pepper" and cat', And(Named("salt and pepper"), cat)),
        ("cat and dog and sofa", And(And(cat, dog), sofa)),
    ],
)
def test_not_binds_closest_then_and_then_or(text: str, query: Query) -> None:
    assert parse_query(text, entity_of) == query


@pytest.mark.parametrize(
    ("text", "character", "message"),
    [
        ("", 1, "expected an entity, 'not' or '('"),
        ("cat and", 8, "expected an entity, 'not' or '('"),
        ("cat and or dog", 9, "expected an entity, 'not' or '('"),
        ("cat not dog", 5, "expected 'and', 'or' or the end"),
        ("cat (dog)", 5, "expected 'and', 'or' or the end"),
        ("cat)", 4, "no '(' is open here"),
        ("cat and (dog or sofa", 9, "this '(' is not closed"),
        ("()", 2, "expected an entity, 'not' or '('"),
        ('"cat', 1, "this quote is not closed"),
        ("dog and caat", 9, "unknown word 'caat'; near it: cat"),
        ("cat dog", 1, "unknown word 'cat dog'; near it: cat"),
    ],
)
def test_an_error_points_at_the_character(text: str, character: int, message: str) -> None:
    with pytest.raises(ValueError, match="query, character") as error:
        parse_query(text, entity_of)
    first, shown, mark = str(error.value).split("\n")
    assert first == f"query, character {character}: {message}"
    assert shown == f"  {text}"
    assert mark == " " * (character + 1) + "^"


queries = st.recursive(
    st.sampled_from(NAMES).map(Named),
    lambda inner: st.one_of(
        inner.map(Not), st.tuples(inner, inner).map(lambda p: And(*p)), st.tuples(inner, inner).map(lambda p: Or(*p))
    ),
    max_leaves=6,
)


def written(query: Query) -> str:
    match query:
        case Named(entity):
            return f'"{entity}"'
        case Not(inner):
            return f"not ({written(inner)})"
        case And(left, right):
            return f"({written(left)}) and ({written(right)})"
        case Or(left, right):
            return f"({written(left)}) or ({written(right)})"


@given(queries)
def test_a_written_query_is_read_back(query: Query) -> None:
    assert parse_query(written(query), entity_of) == query


@given(st.text(alphabet='catdog()" noradx', max_size=30))
def test_any_text_is_a_query_or_an_error_with_a_place(text: str) -> None:
    assert error_of(text) is None or str(error_of(text)).startswith("query, character")


def error_of(text: str) -> ValueError | None:
    try:
        parse_query(text, entity_of)
    except ValueError as error:
        return error
    return None


def truth(query: Query, named: dict[str, bool]) -> bool:
    match query:
        case Named(entity):
            return named[entity]
        case Not(inner):
            return not truth(inner, named)
        case And(left, right):
            return truth(left, named) and truth(right, named)
        case Or(left, right):
            return truth(left, named) or truth(right, named)


def test_precedence_is_that_of_python() -> None:
    # Python's own `not`, `and` and `or` are the slow plain version.
    for text in (
        "cat or dog and not sofa",
        "not cat or dog",
        "cat and not dog or sofa and cat",
        "not (cat or dog) and sofa",
    ):
        query = parse_query(text, entity_of)
        for values in product([False, True], repeat=3):
            named = dict(zip(("cat", "dog", "sofa"), values, strict=True))
            assert truth(query, named) == eval(text, {}, dict(named))
