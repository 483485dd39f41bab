from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nltk.tokenize import NLTKWordTokenizer

from curation.exact import ExactRule
from curation.vocabulary import Vocabulary

CC4M = Vocabulary.load("cc4m")
RULE = ExactRule(CC4M)


def found(caption: str) -> list[str]:
    return [caption[mention.start : mention.end] for mention in RULE.parse(caption)]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("a cat and a Dog and dogs", ["cat"]),
        ("a cat, a dog's bed.", ["cat", "dog", "bed"]),
        ("cat. and dog-cat", []),
        ("TV, Tv and tv", ["TV", "tv"]),
        ("T-shirt and shirt", ["T-shirt", "shirt"]),
        ("the \"dog\" and the 'cat'", ["dog", "cat"]),
        ("light blue", ["light"]),
    ],
)
def test_tokens_count_that_equal_a_form_letter_by_letter(caption: str, expected: list[str]) -> None:
    assert found(caption) == expected


pieces = st.sampled_from(["cat", "dog", "Cat", "T-shirt", "'s", '"', "'", "``", "''", ".", ",", " ", "-", "can't", "é"])


@given(st.lists(pieces, max_size=10))
def test_the_same_as_tokenizing_every_caption(words: list[str]) -> None:
    caption = "".join(words)
    assert found(caption) == [token for token in NLTKWordTokenizer().tokenize(caption) if token in CC4M.forms]


@pytest.mark.real_data
def test_the_published_rule_scores_what_was_measured_for_it(shared: Path) -> None:
    hits = errors = 0
    for line in (shared / "gold" / "entities_dev.tsv").read_text().splitlines():
        caption, gold, doubtful = line.split("\t")
        ignored = set(doubtful.split(","))
        expected = set(filter(None, gold.split(","))) - ignored
        entities = {mention.entity for mention in RULE.parse(caption)} - ignored
        hits += len(expected & entities)
        errors += len(expected ^ entities)
    assert 2 * hits / (2 * hits + errors) == pytest.approx(0.884, abs=0.0005)
