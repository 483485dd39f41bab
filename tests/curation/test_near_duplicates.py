from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.near_duplicates import groups_of, near_any, near_pairs


def _distance(one: int, other: int) -> int:
    return (one ^ other).bit_count()


@st.composite
def _hashes(draw: st.DrawFn) -> list[int]:
    """Return different hashes, many of them a few bits away from another one."""
    bases = draw(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=4))
    flips = draw(st.lists(st.lists(st.integers(0, 63), max_size=7), max_size=12))
    near = [bases[i % len(bases)] ^ sum(1 << bit for bit in set(bits)) for i, bits in enumerate(flips)]
    return sorted({*bases, *near})


@given(hashes=_hashes(), bits=st.integers(0, 6))
def test_pairs_are_those_that_a_comparison_of_all_finds(hashes: list[int], bits: int) -> None:
    found = [tuple(pair) for pair in near_pairs(np.array(hashes, np.uint64), bits).tolist()]
    count = range(len(hashes))
    assert found == [(i, j) for i in count for j in count if i < j and _distance(hashes[i], hashes[j]) <= bits]


@given(hashes=_hashes(), others=_hashes(), bits=st.integers(0, 6))
def test_near_any_finds_an_other_exactly_where_there_is_one(hashes: list[int], others: list[int], bits: int) -> None:
    found = near_any(np.array(hashes, np.uint64), np.array(others, np.uint64), bits).tolist()
    for value, position in zip(hashes, found, strict=True):
        if position < 0:
            assert min(_distance(value, other) for other in others) > bits
        else:
            assert _distance(value, others[position]) <= bits


def test_a_group_is_named_by_its_smallest_key_and_chains_are_one_group() -> None:
    # 0 - 0b11 - 0b1111 is a chain of steps of two bits; the last hash is far from all.
    hashes = np.array([0b1111, 1 << 60 | 0xFF00, 0b11, 0, 1 << 60 | 0xFF00, 2**64 - 1], np.uint64)
    found = groups_of(np.array([2, 3, 5, 7, 11, 13]), hashes, bits=2)
    assert found.to_pylist() == [
        {"key": key, "group": group} for key, group in ((2, 2), (3, 3), (5, 2), (7, 2), (11, 3))
    ]


@pytest.mark.parametrize("count", [0, 1])
def test_few_images_have_no_duplicates(count: int) -> None:
    assert len(groups_of(np.arange(count), np.arange(count).astype(np.uint64), bits=4)) == 0
