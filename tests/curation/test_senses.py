from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.senses import Phrases, Sense, Verdict

WORDS = st.sampled_from(["a", "b", "|"])


def judge(sense: Sense, before: str, after: str) -> list[Verdict]:
    return Phrases([sense], {"x": ("a", "b")}).judge(before.split()[::-1], after.split())


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("to go by", "now |", [Verdict(True, (1,)), Verdict(False, ())]),
        ("by", "|", [Verdict(False, ())]),
        ("| a", "|", [Verdict(True, ())]),
        ("c a", "|", []),
    ],
)
def test_verdicts_come_longest_first_up_to_the_first_that_asks_for_no_noun(
    before: str, after: str, expected: list[Verdict]
) -> None:
    sense = Sense(("f",), "", names=("by _ <noun>", "| {x} _"), other=("by _",))
    assert judge(sense, before, after) == expected


def test_of_two_equal_phrases_the_one_that_names_wins() -> None:
    assert judge(Sense(("f",), "", names=("a _",), other=("a _",)), "a", "") == [Verdict(True, ())]


@given(
    st.lists(WORDS, max_size=3), st.lists(WORDS, max_size=3), st.sets(st.sampled_from(["a _", "_ b", "a _ b", "| _"]))
)
def test_look_ups_agree_with_comparing_every_phrase(before: list[str], after: list[str], other: set[str]) -> None:
    def fits(phrase: str) -> bool:
        left, right = (side.split() for side in phrase.split("_"))
        return _ends(before[::-1], left) and _ends(after[::-1], right[::-1])

    def _ends(words: Sequence[str], tail: list[str]) -> bool:
        return not tail or list(words[-len(tail) :]) == tail

    found = Phrases([Sense(("f",), "", other=tuple(other))], {}).judge(before, after) if other else []
    assert bool(found) == any(fits(phrase) for phrase in other)
