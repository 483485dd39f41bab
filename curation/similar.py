"""The choice of similar partners: of the images nearest to one within an entity, a seeded few.

An image prefers the nearest images of each of its entities in an order hashed from (seed, key, partner's key), its
entities in turn. It gets the first of them; with a cap on how often an image serves, each image keeps the askers that a
second hash puts first, and the others ask on. Neither order depends on where a row lies or on who works on it.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from curation.draw import Ints, Rows, Slices, hashes_of, mixed
from curation.manifest import replacing
from curation.neighbours import UNIT, Floats, Recall, Search, Vectors, with_ties_broken

logger = logging.getLogger(__name__)

_QUERIES_AT_ONCE = 8192
_ROWS_AT_ONCE = 50_000


def nearest_slots(
    slices: Slices,
    vectors: Vectors,
    keys: Ints,
    num_nearest: int,
    min_recall: float,
    seed: int,
    names: list[str],
    scratch_dir: Path,
) -> tuple[Rows, Recall]:
    """Return for each entry the slots of its entity that are nearest to it, -1 where there are no more.

    An entry's own slot is none of them. The slots of each entity are kept in `scratch_dir`, so that a killed run goes
    on; remove it when they are not needed any more.

    Shapes: vectors [rows, d], keys [rows] -> [entries, num_nearest].
    """
    scratch_dir.mkdir(exist_ok=True)
    nearest = np.full((len(slices.entry_slots), num_nearest), -1, np.int32)
    codes = slices.entry_codes
    by_entity = np.argsort(codes, kind="stable")
    starts = np.searchsorted(codes[by_entity], np.arange(len(names) + 1))
    entry_rows = slices.entry_rows
    recall = Recall()
    for code in np.flatnonzero(np.diff(starts)).tolist():
        entries = by_entity[starts[code] : starts[code + 1]]
        path = scratch_dir / f"{code:05d}.npz"
        if not path.exists():
            slots = slice(int(slices.starts[code]), int(slices.starts[code + 1]))
            candidates = slices.rows[slots]
            search = Search(with_ties_broken(vectors[candidates], keys[candidates], seed), num_nearest + 1, min_recall)
            found = np.concatenate(
                [
                    _others(
                        search,
                        with_ties_broken(vectors[entry_rows[part]], keys[entry_rows[part]], seed + 1),
                        slices.entry_slots[part] - np.int32(slots.start),
                    )
                    for part in np.array_split(entries, -(-len(entries) // _QUERIES_AT_ONCE))
                ]
            )
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, found=found, recall=[search.recall.found, search.recall.asked])
            logger.info("similar  %s: %s images, recall %.3f", names[code], f"{len(entries):,}", search.recall.rate)
        with np.load(path) as content:
            found = content["found"]
            nearest[entries, : found.shape[1]] = np.where(found < 0, -1, found + slices.starts[code])
            recall += Recall(*content["recall"].tolist())
    return nearest, recall


def preferred(slices: Slices, nearest: Rows, rows: Ints, keys: Ints, num_preferred: int, seed: int) -> Rows:
    """Return the slots that rows would have, in order, each other row once; -1 where there are no more.

    Shapes: nearest [entries, n], rows consecutive, keys [all rows] -> [rows, num_preferred].
    """
    preferences = np.full((len(rows), num_preferred), -1, np.int32)
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = rows[first : first + _ROWS_AT_ONCE]
        preferences[first : first + len(part)] = _preferred(slices, nearest, part, keys, num_preferred, seed)
    return preferences


def chosen(
    preferences: Rows, slices: Slices, keys: Ints, num_partners: int, max_serves: int | None, seed: int
) -> NDArray[np.bool_]:
    """Return which preferences of all rows are granted: per row the first `num_partners` that its partners accept.

    A partner accepts at most `max_serves` rows. The outcome is the only one in which no row and no image that it would
    rather have both wish for each other (deferred acceptance), so it does not depend on the order of the work.

    Shapes: preferences [rows, n] -> [rows, n].
    """
    is_open = preferences >= 0
    while True:
        is_chosen = is_open & (np.cumsum(is_open, axis=1, dtype=np.int16) <= num_partners)
        if max_serves is None:
            return is_chosen
        places = np.flatnonzero(is_chosen)
        partners = slices.rows[preferences.reshape(-1)[places]]
        is_over = (np.bincount(partners, minlength=len(keys)) > max_serves)[partners]
        if not is_over.any():
            return is_chosen
        places, partners = places[is_over], partners[is_over]
        wish = mixed(
            mixed(keys[partners].astype(np.uint64) + np.uint64(seed)) ^ keys[places // is_open.shape[1]].view(np.uint64)
        )
        order = np.lexsort((wish, partners))
        ranks = np.arange(len(order)) - np.searchsorted(partners[order], partners[order])
        is_open.reshape(-1)[places[order[ranks >= max_serves]]] = False


def cosines(vectors: Vectors, rows: Ints, partners: Rows) -> Floats:
    """Return the cosine of each row with each of its partners. Shapes: [n], [n, k] -> [n, k]."""
    scores = np.empty(partners.shape, np.float32)
    for first in range(0, len(rows), _QUERIES_AT_ONCE):
        part = slice(first, first + _QUERIES_AT_ONCE)
        own = vectors[rows[part]].astype(np.float32)
        scores[part] = np.einsum("nd,nkd->nk", own, vectors[partners[part]].astype(np.float32)) / UNIT**2
    return scores


def _others(search: Search, queries: Floats, own: Rows) -> Rows:
    """Return the positions nearest to queries without their own, -1 where there are no more."""
    _, positions = search(queries)
    is_other = (positions != own[:, None]) & (positions >= 0)
    others = np.take_along_axis(positions, np.argsort(~is_other, axis=1, kind="stable"), axis=1)
    others[np.arange(others.shape[1]) >= is_other.sum(axis=1)[:, None]] = -1
    return others[:, : search.num_nearest - 1].astype(np.int32)


def _preferred(slices: Slices, nearest: Rows, rows: Ints, keys: Ints, num_preferred: int, seed: int) -> Rows:
    first, last = slices.row_starts[rows[0]], slices.row_starts[rows[-1] + 1]
    if first == last:
        return np.full((len(rows), num_preferred), -1, np.int32)
    own = np.repeat(np.arange(len(rows)), np.diff(slices.row_starts[rows[0] : rows[-1] + 2]))
    slots = nearest[first:last]
    # The order of each entity's images, then the entities of a row in turn.
    seeded = hashes_of(keys[rows], 1, seed)[own]
    hashes = mixed(seeded ^ keys[slices.rows[slots]].view(np.uint64))
    hashes[slots < 0] = np.uint64(2**64 - 1)
    slots = np.take_along_axis(slots, np.argsort(hashes, axis=1), axis=1)
    turn = mixed(seeded[:, 0] + slices.entry_codes[first:last].astype(np.uint64))
    places = np.argsort(np.lexsort((turn, own)))  # ascending by row, within it by hash
    cells = np.argsort(
        (own.astype(np.uint64)[:, None] << np.uint64(40))
        + (np.arange(slots.shape[1], dtype=np.uint64) << np.uint64(32))
        + places.astype(np.uint64)[:, None],
        axis=None,
    )
    cells = cells[slots.reshape(-1)[cells] >= 0]
    own, slots = own[cells // slots.shape[1]], slots.reshape(-1)[cells]
    _, once = np.unique(own * len(keys) + slices.rows[slots], return_index=True)
    once.sort()
    own, slots = own[once], slots[once]
    place = np.arange(len(own)) - np.searchsorted(own, own)
    is_kept = place < num_preferred
    preferences = np.full((len(rows), num_preferred), -1, np.int32)
    preferences[own[is_kept], place[is_kept]] = slots[is_kept]
    return preferences
