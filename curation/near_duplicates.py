"""Images that show the same, found by perceptual hashes that differ in few bits: exact, and without comparing all.

Hashes that differ in at most d bits agree in at least two of d + 2 blocks of bits. So for every two blocks the hashes
are sorted by the bits of both, and only neighbours with equal bits are compared: 4 million hashes take seconds.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from curation.manifest import replacing

logger = logging.getLogger(__name__)

DUPLICATES_FILE = "duplicates.parquet"
DUPLICATES = pa.schema([("key", pa.int64()), ("group", pa.int64())])
"""images/duplicates.parquet: one row per image that has a near-duplicate; `group` is the smallest key of its group."""

HASH_BITS = 64
MAX_BITS = 6
"""most differing bits: beyond, blocks are so small that nearly all hashes would be compared"""


def near_pairs(hashes: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """Return the pairs of different hashes, ascending and without repetition, that differ in at most `bits` bits.

    Shapes: hashes [N], all different -> pairs [P, 2], positions.
    """
    edges = np.linspace(0, HASH_BITS, bits + 3).round().astype(int)
    blocks = [((1 << int(last - first)) - 1) << int(first) for first, last in pairwise(edges)]
    found = [np.empty((0, 2), np.int64)]
    for one, other in combinations(blocks, 2):
        shared = hashes & np.uint64(one | other)
        order = np.argsort(shared, kind="stable")
        for left, right in _equal_neighbours(shared[order]):
            is_near = np.bitwise_count(hashes[order[left]] ^ hashes[order[right]]) <= bits
            found.append(np.sort(np.stack([order[left[is_near]], order[right[is_near]]], axis=1), axis=1))
    return np.unique(np.concatenate(found), axis=0)


def groups_of(keys: NDArray[np.int64], hashes: NDArray[np.uint64], bits: int) -> pa.Table:
    """Return the groups (`DUPLICATES`, sorted by key) of images whose hashes differ in at most `bits` bits.

    Groups are closed: two copies of a third image are in one group even if they differ in more.

    Shapes: keys [N], ascending; hashes [N].
    """
    values, which = np.unique(hashes, return_inverse=True)
    pairs = near_pairs(values, bits)
    links = coo_array((np.ones(len(pairs), np.int8), (pairs[:, 0], pairs[:, 1])), shape=(len(values), len(values)))
    group_of_image = connected_components(links, directed=False)[1][which]
    # Keys ascend, so the first image of a group has its smallest key.
    _, first, group, sizes = np.unique(group_of_image, return_index=True, return_inverse=True, return_counts=True)
    is_copy = sizes[group] > 1
    return pa.table([keys[is_copy], keys[first][group][is_copy]], schema=DUPLICATES)


def near_any(hashes: NDArray[np.uint64], others: NDArray[np.uint64], bits: int) -> NDArray[np.int64]:
    """Return for each hash the position of one of `others` that differs in at most `bits` bits, or -1.

    Shapes: hashes [N], others [M] -> [N].
    """
    values, which = np.unique(np.concatenate([others, hashes]), return_inverse=True)
    other_of_value = np.full(len(values), -1)
    other_of_value[which[: len(others)]] = np.arange(len(others))
    pairs = near_pairs(values, bits)
    found = other_of_value.copy()
    for ours, near in ((pairs[:, 0], pairs[:, 1]), (pairs[:, 1], pairs[:, 0])):
        is_new = (found[ours] < 0) & (other_of_value[near] >= 0)
        found[ours[is_new]] = other_of_value[near[is_new]]
    return found[which[len(others) :]]


def write_duplicates(images_dir: Path, groups: pa.Table) -> None:
    """Write duplicates.parquet from groups (`DUPLICATES`)."""
    with replacing(images_dir / DUPLICATES_FILE) as path:
        pq.write_table(groups, path, compression="zstd")


def _equal_neighbours(ordered: NDArray[np.uint64]) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield positions (left, right) of equal values of a sorted array, all pairs of each run, distance by distance."""
    left = np.arange(len(ordered) - 1)
    distance = 1
    while len(left):
        left = left[left + distance < len(ordered)]
        left = left[ordered[left] == ordered[left + distance]]
        if len(left):
            yield left, left + distance
        distance += 1
