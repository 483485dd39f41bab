"""The seeded draw of partners: an entity of the image, then another image that has it.

Every draw is a function of (seed, key, k) and of the images that have the entity, in order of arrival. No generator is
stored, so the order and the number of workers do not matter; and since positions are drawn by consistent hashing, an
image that arrives later changes a draw only by becoming the partner itself.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Rows = NDArray[np.int32]
Hashes = NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_ONE = np.uint64(1)
_ROWS_AT_ONCE = 16_384
"""Rows whose draws stay in a core's cache together."""


@dataclass(frozen=True)
class Slices:
    """Which rows have which entity.

    A *slot* is a row that may serve as a partner by an entity: slots are sorted by entity, within it by arrival. Of
    rows that are marked as duplicates of each other, the first to arrive has the slot and stands for all. An *entry* is
    a row with one of its entities.
    """

    starts: Ints
    """first slot of each entity, and the number of slots [entities + 1]"""
    rows: Rows
    """row of each slot [slots]"""
    codes: Rows
    """entity of each slot [slots]"""
    row_starts: Ints
    """first entry of each row, and the number of entries [rows + 1]"""
    entry_slots: Rows
    """slot of each entry, its own row's or that of the row it duplicates; by row, within it by entity [entries]"""
    entry_codes: Rows
    """entity of each entry [entries]"""

    @classmethod
    def of(cls, codes: Ints, rows: Ints, num_entities: int, num_rows: int, groups: Ints | None = None) -> Slices:
        """Return the slices of entries that are sorted by entity; a repeated (entity, row) counts once.

        Shapes: codes [n], rows [n], groups [rows]: rows with the same number (below `num_rows`) are duplicates.
        """
        first = np.sort(_first_of_each(codes * num_rows + rows))
        codes, rows = codes[first], rows[first]
        slots, slot_of = np.arange(len(rows)), np.arange(len(rows))
        if groups is not None:
            same = codes * num_rows + groups[rows]
            slots = np.sort(_first_of_each(same))
            order = np.argsort(same[slots])
            slot_of = order[np.searchsorted(same[slots], same, sorter=order)]
        by_row = np.argsort(rows, kind="stable")
        return cls(
            starts=_starts(codes[slots], num_entities),
            rows=rows[slots].astype(np.int32),
            codes=codes[slots].astype(np.int32),
            row_starts=_starts(rows, num_rows),
            entry_slots=slot_of[by_row].astype(np.int32),
            entry_codes=codes[by_row].astype(np.int32),
        )

    def shared(self) -> Slices:
        """Return the slices of the entities that at least two rows have, duplicates of each other counted once."""
        sizes = np.diff(self.starts)
        is_shared = sizes > 1
        is_kept = is_shared[self.codes]
        number = np.cumsum(is_kept) - 1
        has_entry = is_shared[self.entry_codes]
        entry_rows = self.entry_rows[has_entry]
        return Slices(
            starts=np.concatenate([[0], np.cumsum(np.where(is_shared, sizes, 0))]),
            rows=self.rows[is_kept],
            codes=self.codes[is_kept],
            row_starts=_starts(entry_rows, len(self.row_starts) - 1),
            entry_slots=number[self.entry_slots[has_entry]].astype(np.int32),
            entry_codes=self.entry_codes[has_entry],
        )

    def partners(self, slots: Rows) -> tuple[Rows, Rows]:
        """Return rows and entities of slots, -1 where a slot is -1. Shapes: any, the same for all."""
        is_slot = slots >= 0
        rows, codes = np.full_like(slots, -1), np.full_like(slots, -1)
        rows[is_slot], codes[is_slot] = self.rows[slots[is_slot]], self.codes[slots[is_slot]]
        return rows, codes

    @property
    def entry_rows(self) -> Ints:
        """Row of each entry [entries]."""
        return np.repeat(np.arange(len(self.row_starts) - 1), np.diff(self.row_starts))


def draw_uniform(slices: Slices, rows: Ints, keys: Ints, num_partners: int, seed: int) -> Rows:
    """Draw partners of rows with replacement: an entity of the row uniformly, then another row that has it uniformly.

    `slices` must hold shared entities only. A row without entities gets -1.

    Shapes: rows [n], keys [n] -> slots [n, num_partners].
    """
    slots = np.full((len(rows), num_partners), -1, np.int32)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = slice(first, first + _ROWS_AT_ONCE)
        num_entities = slices.row_starts[rows[part] + 1] - slices.row_starts[rows[part]]
        has_partner = num_entities > 0
        own_rows, num_entities = rows[part][has_partner], num_entities[has_partner, None]
        hashes = hashes_of(keys[part][has_partner], num_partners, seed)
        # 53 bits as a number in [0, 1), then as one of the row's entities.
        choice = ((hashes >> np.uint64(11)) * 2.0**-53 * num_entities).astype(np.int64)
        entry = (slices.row_starts[own_rows][:, None] + choice).reshape(-1)
        own, entity = slices.entry_slots[entry], slices.entry_codes[entry]
        start = slices.starts[entity]
        position = consistent_position(mixed(hashes.reshape(-1)), slices.starts[entity + 1] - start - 1)
        position += start
        position += position >= own  # passes over the row itself
        slots[part][has_partner] = position.reshape(-1, num_partners)
    return slots


def consistent_position(hashes: Hashes, sizes: Ints) -> Ints:
    """Return a position in [0, size) for each hash, uniform; when a size grows by 1, one in size + 1 moves, to the end.

    A position for the next power of two is drawn. Below `size` it stands. Else the draw is repeated with other bits
    until it falls below `size`; in the upper half of the power it stands, in the lower half the position for half the
    power is taken: the one that smaller sizes had.

    Source: the idea of FlipHash, Masson and Lee, arXiv 2402.17549; the hashes are splitmix64's.
    """
    powers = _next_powers(sizes)
    position = _position_in_power(hashes, powers)
    again = np.flatnonzero(position >= sizes)
    for attempt in range(1, 1 << 16):
        if not len(again):
            break
        salt = np.uint64((attempt << 8) * int(_GOLDEN) % 2**64)
        drawn = (mixed(hashes[again] ^ salt) & (powers[again] - _ONE)).astype(np.int64)
        half = powers[again] >> _ONE
        is_upper = drawn >= half.astype(np.int64)
        fits = drawn < sizes[again]
        lower = fits & ~is_upper
        position[again[fits & is_upper]] = drawn[fits & is_upper]
        position[again[lower]] = _position_in_power(hashes[again[lower]], half[lower])
        again = again[~fits]
    return position


def hashes_of(keys: Ints, count: int, seed: int) -> Hashes:
    """Return hashes of (seed, key, k) for k below `count`. Shapes: [n] -> [n, count]."""
    seeded = mixed(keys.astype(np.uint64) + mixed(np.array([seed], np.uint64)))
    return mixed(seeded[:, None] + np.arange(1, count + 1, dtype=np.uint64) * _GOLDEN)


def mixed(values: Hashes) -> Hashes:
    """Return values with their bits mixed (splitmix64)."""
    values = values + _GOLDEN
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        values ^= values >> np.uint64(shift)
        values *= np.uint64(factor)
    values ^= values >> np.uint64(31)
    return values


def _position_in_power(hashes: Hashes, powers: Hashes) -> Ints:
    """Return a position in [0, power): the highest set bit of the hash's low bits, and below it bits of its own."""
    low = (hashes & (powers - _ONE)).astype(np.int64)
    level = np.frexp(low.astype(np.float64))[1]  # one above the highest bit; 0 for 0
    highest = np.left_shift(1, level.astype(np.int64)) >> 1
    below: Ints = mixed(hashes + level.astype(np.uint64) * _GOLDEN).view(np.int64)
    below &= np.maximum(highest - 1, 0)
    below |= highest
    return below


def _next_powers(sizes: Ints) -> Hashes:
    """Return the least power of two that is at least 2 and the size."""
    level = np.frexp(np.maximum(sizes - 1, 1).astype(np.float64))[1]
    return np.left_shift(1, level.astype(np.int64)).astype(np.uint64)


def _first_of_each(numbers: Ints) -> Ints:
    first: Ints = np.unique(numbers, return_index=True)[1]
    return first


def _starts(numbers: NDArray[np.integer], count: int) -> Ints:
    return np.concatenate([[0], np.cumsum(np.bincount(numbers, minlength=count))]).astype(np.int64)
