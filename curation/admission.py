"""Which rows of a caption table are kept: the first of those that are equal, and one address per key.

The verdict on a row depends on all rows before it with its key, of millions. So that memory does not grow with the
table, the keys' hashes are dealt out to files by key, and each file, small and whole, is judged at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

DUPLICATE = -1
"""Verdict on a row whose address and text an earlier row has."""
COLLISION = -2
"""Verdict on a row whose key an earlier row has, with another address."""
UNREAD = -3
"""Verdict on a row that was refused before."""

ENTRY = np.dtype([("row", np.int64), ("key", np.int64), ("address", np.uint64), ("text", np.uint64)])
"""What decides on a row: its place in the table, its key, and the hashes of its address and of address and text."""

Entries = npt.NDArray[Any]
Verdicts = npt.NDArray[np.int32]

BUCKET_ROWS = 1 << 18
"""Rows that are judged at once, as long as that makes fewer than 512 files."""

_MOST_BUCKETS = 512


def judge_rows(
    entries: Iterable[Entries], num_rows: int, scratch_dir: Path, bucket_rows: int = BUCKET_ROWS
) -> Verdicts:
    """Return the verdict on every row of the table, memory-mapped: its caption_id, or why it is not kept.

    Texts are compared by a 64-bit hash (of address and text): among the 12 million captions of CC12M the chance that
    any is taken for a duplicate wrongly is 4 in a million. Memory: `bucket_rows` rows, up to 130 million rows of them.
    """
    scratch_dir.mkdir(parents=True, exist_ok=True)
    verdicts = np.lib.format.open_memmap(scratch_dir / "verdicts.npy", "w+", np.int32, (num_rows,))
    verdicts[:] = UNREAD
    for bucket in _deal(entries, min(1 + num_rows // bucket_rows, _MOST_BUCKETS), scratch_dir):
        verdicts[bucket["row"]] = judge(bucket)
    return verdicts


def judge(entries: Entries) -> Verdicts:
    """Return the verdict on every entry, given all entries with the keys among them."""
    order = np.lexsort((entries["row"], entries["key"]))
    ordered = entries[order]
    is_first = np.append(True, ordered["key"][1:] != ordered["key"][:-1])[: len(ordered)]
    key_number = np.cumsum(is_first) - 1
    first_at = np.flatnonzero(is_first)
    has_owners_address = ordered["address"] == ordered["address"][first_at][key_number]
    usable = np.flatnonzero(has_owners_address)
    _, new = np.unique(ordered["text"][usable], return_index=True)
    is_kept = np.zeros(len(ordered), np.bool_)
    is_kept[usable[new]] = True
    kept_before: npt.NDArray[np.int64] = np.cumsum(is_kept) - is_kept
    verdicts = np.where(has_owners_address, DUPLICATE, COLLISION).astype(np.int32)
    verdicts[is_kept] = (kept_before - kept_before[first_at][key_number])[is_kept]
    in_order_of_rows = np.empty_like(verdicts)
    in_order_of_rows[order] = verdicts
    return in_order_of_rows


def _deal(entries: Iterable[Entries], num_buckets: int, scratch_dir: Path) -> Iterator[Entries]:
    """Yield the entries again, all those of a key together."""
    paths = [scratch_dir / f"bucket-{number:03d}" for number in range(num_buckets)]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("wb")) for path in paths]
        for batch in entries:
            bucket = batch["key"] % num_buckets
            order = np.argsort(bucket, kind="stable")
            bounds = np.searchsorted(bucket[order], np.arange(num_buckets + 1))
            for number, file in enumerate(files):
                file.write(batch[order[bounds[number] : bounds[number + 1]]].tobytes())
    for path in paths:
        yield np.fromfile(path, ENTRY)
        path.unlink()
