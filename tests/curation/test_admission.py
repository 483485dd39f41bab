from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.admission import COLLISION, DUPLICATE, ENTRY, UNREAD, judge, judge_rows

Row = tuple[int, int, int]

rows = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 2)), max_size=40)


def entries(rows: list[Row]) -> np.ndarray:
    # The text's hash is of address and text, so equal texts of two addresses differ.
    return np.array([(at, key, address, 10 * address + text) for at, (key, address, text) in enumerate(rows)], ENTRY)


def plainly(rows: list[Row]) -> list[int]:
    owner: dict[int, int] = {}
    seen: set[Row] = set()
    num_captions: dict[int, int] = {}
    verdicts = []
    for key, address, text in rows:
        if owner.setdefault(key, address) != address:
            verdicts.append(COLLISION)
        elif (key, address, text) in seen:
            verdicts.append(DUPLICATE)
        else:
            verdicts.append(num_captions.get(key, 0))
            num_captions[key] = num_captions.get(key, 0) + 1
            seen.add((key, address, text))
    return verdicts


def one_address_per_pair(rows: list[Row]) -> list[Row]:
    # Two keys never have one address.
    return [(key, 3 * key + address, text) for key, address, text in rows]


@given(rows)
def test_verdicts_are_those_of_a_plain_pass(rows: list[Row]) -> None:
    rows = one_address_per_pair(rows)
    assert judge(entries(rows)).tolist() == plainly(rows)


@settings(max_examples=25)
@given(rows, st.integers(1, 7))
def test_verdicts_do_not_depend_on_batches_and_buckets(
    tmp_path_factory: pytest.TempPathFactory, rows: list[Row], size: int
) -> None:
    rows = one_address_per_pair(rows)

    def batches() -> Iterator[np.ndarray]:
        # Each row stands at every second place: those between were refused before.
        whole = entries(rows)
        whole["row"] *= 2
        for at in range(0, len(rows), size):
            yield whole[at : at + size]

    verdicts = judge_rows(batches(), 2 * len(rows) + 1, tmp_path_factory.mktemp("scratch"), bucket_rows=5)
    assert verdicts[: 2 * len(rows) : 2].tolist() == plainly(rows)
    assert set(verdicts[1::2].tolist()) <= {UNREAD}
