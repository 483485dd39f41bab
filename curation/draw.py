"""The seeded draw of partners: an entity of the image, then another image that has it.

Every draw is a function of (seed, key, k) and of the images that have the entity, in order of arrival. No generator is
stored, so the order and the number of workers do not matter; and since positions are drawn by jump consistent hashing,
an image that arrives later changes a draw only by becoming the partner itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_JUMP = np.uint64(2862933555777941757)


@dataclass(frozen=True)
class Slices:
    """Which rows have which entity: entries sorted by entity, within it by arrival; a row once per entity."""

    starts: Ints
    """first entry of each entity, and the number of entries [entities + 1]"""
    rows: Ints
    """row of each entry [entries]"""
    codes: Ints
    """entity of each entry [entries]"""
    row_starts: Ints
    """first position of each row in row_entries, and their number [rows + 1]"""
    row_entries: Ints
    """entries sorted by row, within it by entity [entries]"""

    @classmethod
    def of(cls, codes: Ints, rows: Ints, num_entities: int, num_rows: int) -> Slices:
        """Return the slices of entries that are sorted by entity; a repeated (entity, row) counts once."""
        _, first = np.unique(codes * num_rows + rows, return_index=True)
        first.sort()
        codes, rows = codes[first], rows[first]
        return cls(
            starts=_starts(codes, num_entities),
            rows=rows,
            codes=codes,
            row_starts=_starts(rows, num_rows),
            row_entries=np.argsort(rows, kind="stable"),
        )

    def shared(self) -> Slices:
        """Return the slices of the entities that at least two rows have."""
        is_shared = np.diff(self.starts)[self.codes] > 1
        return Slices.of(self.codes[is_shared], self.rows[is_shared], len(self.starts) - 1, len(self.row_starts) - 1)


def draw_uniform(
    slices: Slices, rows: Ints, keys: Ints, num_partners: int, seed: int
) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Draw partners of rows with replacement: an entity of the row uniformly, then another row that has it uniformly.

    `slices` must hold shared entities only. A row without entities gets -1.

    Shapes: rows [n], keys [n] -> partner rows [n, num_partners], entities [n, num_partners].
    """
    hashes = _hashes(keys, num_partners, seed)
    num_entities = (slices.row_starts[rows + 1] - slices.row_starts[rows])[:, None]
    has_partner = np.broadcast_to(num_entities > 0, hashes.shape)
    # 53 bits as a number in [0, 1), then as one of the row's entities.
    choice = ((hashes >> np.uint64(11)) * 2.0**-53 * num_entities).astype(np.int64)
    entry = slices.row_entries[(slices.row_starts[rows][:, None] + choice)[has_partner]]
    entity = slices.codes[entry]
    start = slices.starts[entity]
    others = slices.starts[entity + 1] - start - 1
    position = jump_hash(_mixed(hashes[has_partner]), others)
    position += position >= entry - start  # passes over the row itself
    partners, entities = (np.full(hashes.shape, -1, np.int32) for _ in range(2))
    partners[has_partner] = slices.rows[start + position]
    entities[has_partner] = entity
    return partners, entities


def jump_hash(hashes: Hashes, sizes: Ints) -> Ints:
    """Return a position in [0, size) for each hash, uniform; when a size grows by 1, one in size + 1 moves, to the end.

    Source: Lamping and Veach, A Fast, Minimal Memory, Consistent Hash Algorithm, arXiv 1406.2294.
    """
    position = np.zeros(len(hashes), np.int64)
    active = np.arange(len(hashes))
    state, jump = hashes.copy(), np.zeros(len(hashes), np.int64)
    while len(active):
        position[active] = jump
        state = state * _JUMP + np.uint64(1)
        jump = ((jump + 1) * (2.0**31 / ((state >> np.uint64(33)) + np.uint64(1)))).astype(np.int64)
        goes_on = jump < sizes[active]
        active, state, jump = active[goes_on], state[goes_on], jump[goes_on]
    return position


def _hashes(keys: Ints, num_partners: int, seed: int) -> Hashes:
    """Return a hash of (seed, key, k). Shapes: [n] -> [n, num_partners]."""
    seeded = _mixed(keys.astype(np.uint64) + _mixed(np.array([seed], np.uint64)))
    return _mixed(seeded[:, None] + np.arange(1, num_partners + 1, dtype=np.uint64) * _GOLDEN)


def _mixed(values: Hashes) -> Hashes:
    """Return values with their bits mixed (splitmix64)."""
    values = values + _GOLDEN
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _starts(sorted_or_not: Ints, count: int) -> Ints:
    return np.concatenate([[0], np.cumsum(np.bincount(sorted_or_not, minlength=count))]).astype(np.int64)
