"""The entity index: which captions name which entities, answered from Parquet without loading it.

postings/ holds a row per (caption, entity), sorted, and no row group of it holds two entities: the file's footer says
how often each occurs and where. A query reads the row groups of its entities as bit masks over the captions, combines
them, and fetches only those row groups of entities/ that hold an answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from scipy.sparse import csr_matrix

from curation.datacard import Figure, write_datacard
from curation.manifest import Manifest, close_stage, mark_part, open_stage, read_manifest, replacing
from curation.query import And, Named, Not, Or, Query, parse_query
from curation.schema import COOCCURRENCE, ENTITIES, ENTITY_COUNTS, POSTINGS, part_name
from curation.vocabulary import Vocabulary

ROW_GROUP_ROWS = 1000
"""Most rows in a row group of entities/: what is read to fetch one answer."""
VOCABULARY_NAME = "vocabulary.toml"
"""File in entities/ with the vocabulary that the captions were parsed by."""
COUNTS_NAME = "counts.parquet"
"""File in postings/ with the captions and images of each entity."""
COOCCURRENCE_NAME = "cooccurrence.parquet"
"""File in postings/ with the captions that name two entities, per pair."""

_POSTINGS_ROW_GROUP_ROWS = 1_000_000
_CARD_ENTITIES = 20

Mask = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.int64]


def write_postings(data_dir: Path) -> Manifest:
    """Write postings/ from entities/, with the counts of each entity and of each pair, and its data card.

    Memory: about 30 bytes a posting.
    """
    entities = read_manifest(data_dir / "entities")
    folder = data_dir / "postings"
    if finished := open_stage(folder, "postings", {}, {"entities": entities.digest}):
        return finished
    names: dict[str, int] = {}
    numbered = [
        _numbered(number, pq.read_table(data_dir / "entities" / part.name, columns=["key", "entities"]), names)
        for number, part in enumerate(entities.parts)
    ]
    codes, keys, parts, rows = (np.concatenate(column) for column in zip(_NOTHING, *numbered, strict=True))
    del numbered
    counts = _write_sorted(folder / part_name(0), names, codes, keys, parts, rows)
    _write(folder / COUNTS_NAME, pa.Table.from_pylist(counts, schema=ENTITY_COUNTS))
    first = _first_of_captions(parts, rows)
    together = _together(codes, first, len(names))
    pairs = _pairs(names, together)
    _write(folder / COOCCURRENCE_NAME, pairs)
    entities_per_caption = np.diff(np.append(first, len(codes)))
    figures: dict[str, Figure] = {
        "captions": entities.rows,
        "images": len(np.unique(keys)),
        "postings": len(codes),
        "entities": len(names),
        "entities per caption, mean": len(codes) / max(entities.rows, 1),
        "captions that name a single entity, share": float((entities_per_caption == 1).sum() / max(entities.rows, 1)),
        "pairs of entities that occur together": pairs.num_rows,
    }
    most = [row["entity"] for row in counts[:_CARD_ENTITIES]]
    matrix = [{"entity": a, **{b: int(together[names[a], names[b]]) for b in most}} for a in most]
    write_datacard(folder, "Entities by frequency", figures, tables={"entities": counts, "co-occurrence": matrix})
    return close_stage(folder, [mark_part(folder, part_name(0), len(codes))])


class EntityIndex:
    """Answers which captions name which entities, in a data folder that was parsed."""

    def __init__(self, data_dir: Path | str) -> None:
        self._entities_dir = Path(data_dir) / "entities"
        self._postings_dir = Path(data_dir) / "postings"
        self._parts = read_manifest(self._entities_dir).parts
        read_manifest(self._postings_dir)
        # A caption's position counts through all parts.
        self._first_positions = np.cumsum([0, *(part.rows for part in self._parts)])
        self._footer = pq.read_metadata(self._postings_dir / part_name(0))
        self._row_groups = _row_groups(self._postings_dir / part_name(0), self._footer)
        self.vocabulary = Vocabulary.load(self._entities_dir / VOCABULARY_NAME)

    def query(self, text: str, limit: int | None = None) -> pa.Table:
        """Return the rows of entities/ whose caption answers a query like `cat and (sofa or bed) and not dog`.

        Words are entities or forms of the vocabulary. The order is that of the captions; `limit` takes the first.
        Each caption is judged by itself: two captions of one image are two answers.

        Raises: ValueError that points at the character when the query cannot be read.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit = {limit}: expected 0 or more rows, or None for all")
        return self._rows(self._hits(text)[:limit])

    def sample(self, size: int, seed: int = 0, text: str | None = None) -> pa.Table:
        """Return random rows of entities/, of those that a query hits if there is one, in the order of the captions.

        The same seed gives the same rows of the same folder.
        """
        if size < 0:
            raise ValueError(f"sample = {size}: expected 0 or more rows")
        hits = np.arange(self._first_positions[-1]) if text is None else self._hits(text)
        return self._rows(np.sort(np.random.default_rng(seed).permutation(hits)[:size]))

    def count(self, text: str) -> int:
        """Return how many captions a query hits."""
        return len(self._hits(text))

    def counts(self) -> pa.Table:
        """Return entity, captions and images (different keys) of every entity that occurs, the most frequent first."""
        return pq.read_table(self._postings_dir / COUNTS_NAME)

    def together(self, text: str | None = None) -> pa.Table:
        """Return which entities occur together, the most frequent first.

        Without a query: entity, other, captions of every pair; with one: entity, captions of every entity that is named
        in the captions that the query hits.
        """
        if text is None:
            return pq.read_table(self._postings_dir / COOCCURRENCE_NAME)
        mask = self._mask(parse_query(text, self.vocabulary.entity))
        counts = {entity: int(mask[self._positions(entity)].sum()) for entity in self._row_groups}
        named = sorted((entity for entity in counts if counts[entity]), key=lambda entity: -counts[entity])
        return pa.table([named, [counts[entity] for entity in named]], schema=ENTITY_COUNTS.remove(2))

    def _hits(self, text: str) -> Numbers:
        return np.flatnonzero(self._mask(parse_query(text, self.vocabulary.entity)))

    def _mask(self, query: Query) -> Mask:
        """Return for every caption whether the query hits it."""
        match query:
            case Named(entity):
                return self._named(entity)
            case Not(inner):
                return ~self._mask(inner)
            case And(left, right):
                return self._mask(left) & self._mask(right)
            case Or(left, right):
                return self._mask(left) | self._mask(right)
            case _:
                assert_never(query)

    def _named(self, entity: str) -> Mask:
        mask = np.zeros(self._first_positions[-1], np.bool_)
        mask[self._positions(entity)] = True
        return mask

    def _positions(self, entity: str) -> Numbers:
        """Return the positions of the captions that name an entity, ascending."""
        with pq.ParquetFile(self._postings_dir / part_name(0), metadata=self._footer) as file:
            hits = file.read_row_groups(self._row_groups.get(entity, []), columns=["part", "row"])
        positions: Numbers = self._first_positions[hits["part"].to_numpy()] + hits["row"].to_numpy()
        return positions

    def _rows(self, positions: npt.NDArray[np.int64]) -> pa.Table:
        """Return the rows at ascending positions, reading only the row groups that hold one."""
        tables = []
        parts = self._first_positions.searchsorted(positions, side="right") - 1
        for number in np.unique(parts).tolist():
            rows = positions[parts == number] - self._first_positions[number]
            with pq.ParquetFile(self._entities_dir / self._parts[number].name) as file:
                sizes = [file.metadata.row_group(group).num_rows for group in range(file.num_row_groups)]
                first_rows = np.cumsum([0, *sizes])
                groups = first_rows.searchsorted(rows, side="right") - 1
                for group in np.unique(groups).tolist():
                    tables.append(file.read_row_group(group).take(rows[groups == group] - first_rows[group]))
        return pa.concat_tables(tables) if tables else self._empty()

    def _empty(self) -> pa.Table:
        if not self._parts:
            return ENTITIES.empty_table()
        return pq.read_schema(self._entities_dir / self._parts[0].name).empty_table()


_NOTHING = tuple(np.empty(0, kind) for kind in (np.int32, np.int64, np.int32, np.int32))


def _numbered(number: int, table: pa.Table, names: dict[str, int]) -> tuple[npt.NDArray[Any], ...]:
    """Return code, key, part and row of every posting of a part; entities that are new get the next codes."""
    lists = table["entities"].combine_chunks()
    values = pc.list_flatten(lists).dictionary_encode()
    codes = np.array([names.setdefault(name, len(names)) for name in values.dictionary.to_pylist()], np.int32)
    rows = pc.list_parent_indices(lists).to_numpy()
    parts = np.full(len(rows), number, np.int32)
    return codes[values.indices.to_numpy()], table["key"].to_numpy()[rows], parts, rows.astype(np.int32)


def _write_sorted(
    path: Path,
    names: dict[str, int],
    codes: npt.NDArray[np.int32],
    keys: Numbers,
    parts: npt.NDArray[np.int32],
    rows: npt.NDArray[np.int32],
) -> list[dict[str, Any]]:
    """Write postings as `POSTINGS` and return the counts (`ENTITY_COUNTS`), the most frequent first."""
    order = np.argsort(codes, kind="stable")  # parts and rows ascend already
    starts = np.searchsorted(codes[order], np.arange(len(names) + 1))
    counts: list[dict[str, Any]] = []
    with replacing(path) as temporary, pq.ParquetWriter(temporary, POSTINGS, compression="zstd") as writer:
        for name in sorted(names):
            own = order[starts[names[name]] : starts[names[name] + 1]]
            content = [pa.repeat(name, len(own)), keys[own], parts[own], rows[own]]
            writer.write_table(pa.table(content, schema=POSTINGS), _POSTINGS_ROW_GROUP_ROWS)
            counts.append({"entity": name, "captions": len(own), "images": len(np.unique(keys[own]))})
    return sorted(counts, key=lambda row: -row["captions"])  # stable: equal ones stay in the order of their names


def _first_of_captions(parts: npt.NDArray[np.int32], rows: npt.NDArray[np.int32]) -> Numbers:
    """Return where in the postings, in the order of captions, each caption begins."""
    is_first = (parts[1:] != parts[:-1]) | (rows[1:] != rows[:-1])
    return np.flatnonzero(np.append(True, is_first)[: len(parts)])


def _together(codes: npt.NDArray[np.int32], first: Numbers, num_entities: int) -> npt.NDArray[np.int64]:
    """Return how many captions name both of two entities, by code; on the diagonal how many name each."""
    shape = (len(first), num_entities)
    named = csr_matrix((np.ones(len(codes), np.int64), codes, np.append(first, len(codes))), shape)
    return np.asarray((named.T @ named).toarray(), np.int64)


def _pairs(names: dict[str, int], together: npt.NDArray[np.int64]) -> pa.Table:
    ordered = sorted(names)
    pairs: list[dict[str, Any]] = [
        {"entity": a, "other": b, "captions": count}
        for at, a in enumerate(ordered)
        for b in ordered[at + 1 :]
        if (count := int(together[names[a], names[b]]))
    ]
    return pa.Table.from_pylist(sorted(pairs, key=lambda pair: -int(pair["captions"])), schema=COOCCURRENCE)


def _write(path: Path, table: pa.Table) -> None:
    with replacing(path) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def _row_groups(path: Path, footer: pq.FileMetaData) -> dict[str, list[int]]:
    """Return the row groups of each entity."""
    groups: dict[str, list[int]] = {}
    for number in range(footer.num_row_groups):
        names = footer.row_group(number).column(0).statistics
        if names.min != names.max:
            raise ValueError(
                f"{path}: a row group holds both '{names.min}' and '{names.max}', as earlier versions wrote it; "
                f"remove {path.parent} and run `ovseg parse` again"
            )
        groups.setdefault(names.min, []).append(number)
    return groups
