"""The entity index: which captions name which entities, answered from Parquet without loading it.

postings/ holds a row per (caption, entity), sorted, so that an entity is one slice of the file; a query reads the
slices of its entities as bit masks over the captions, combines them, and fetches only the row groups with hits.
"""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.datacard import write_datacard
from curation.manifest import Manifest, close_stage, open_stage, read_manifest, write_part
from curation.query import And, Named, Not, Or, Query, parse_query
from curation.schema import ENTITIES, POSTINGS, part_name
from curation.vocabulary import Vocabulary

ROW_GROUP_ROWS = 10_000
"""Most rows in a row group of entities/: what is read to fetch one hit."""
VOCABULARY_NAME = "vocabulary.toml"
"""File in entities/ with the vocabulary that the captions were parsed by."""

_POSTINGS_ROW_GROUP_ROWS = 100_000

Mask = npt.NDArray[np.bool_]


def write_postings(data_dir: Path) -> Manifest:
    """Write postings/ from entities/, and its data card with the counts of each entity.

    Memory: about 40 bytes a posting.
    """
    entities = read_manifest(data_dir / "entities")
    folder = data_dir / "postings"
    if finished := open_stage(folder, "postings", {}, {"entities": entities.digest}):
        return finished
    columns = ["key", "entities"]
    tables = [
        _postings_of(number, pq.read_table(data_dir / "entities" / part.name, columns=columns))
        for number, part in enumerate(entities.parts)
    ]
    order = [("entity", "ascending"), ("part", "ascending"), ("row", "ascending")]
    table = pa.concat_tables([POSTINGS.empty_table(), *tables]).sort_by(order)
    part = write_part(folder, part_name(0), table, row_group_size=_POSTINGS_ROW_GROUP_ROWS)
    counts = _counts(table)
    figures = {
        "captions": entities.rows,
        "images": pc.count_distinct(table["key"]).as_py(),
        "postings": table.num_rows,
        "entities": counts.num_rows,
    }
    write_datacard(folder, "Entities by frequency", figures, tables={"entities": counts.to_pylist()})
    return close_stage(folder, [part])


class EntityIndex:
    """Answers which captions name which entities, in a data folder that was parsed."""

    def __init__(self, data_dir: Path | str) -> None:
        self._entities_dir = Path(data_dir) / "entities"
        self._postings = Path(data_dir) / "postings" / part_name(0)
        self._parts = read_manifest(self._entities_dir).parts
        read_manifest(self._postings.parent)
        # A caption's position counts through all parts.
        self._first_positions = np.cumsum([0, *(part.rows for part in self._parts)])
        self.vocabulary = Vocabulary.load(self._entities_dir / VOCABULARY_NAME)

    def query(self, text: str, limit: int | None = None) -> pa.Table:
        """Return the rows of entities/ whose caption answers a query like `cat and (sofa or bed) and not dog`.

        Words are entities or forms of the vocabulary. The order is that of the captions; `limit` takes the first.
        Each caption is judged by itself: two captions of one image are two answers.

        Raises: ValueError that points at the character when the query cannot be read.
        """
        if limit is not None and limit < 0:
            raise ValueError(f"limit = {limit}: expected 0 or more rows, or None for all")
        positions = np.flatnonzero(self._mask(parse_query(text, self.vocabulary.entity)))
        return self._rows(positions[:limit])

    def counts(self) -> pa.Table:
        """Return entity, captions and images (different keys) of every entity that occurs, the most frequent first."""
        return _counts(pq.read_table(self._postings, columns=["entity", "key"]))

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
        hits = pq.read_table(self._postings, columns=["part", "row"], filters=[("entity", "==", entity)])
        mask = np.zeros(self._first_positions[-1], np.bool_)
        mask[self._first_positions[hits["part"].to_numpy()] + hits["row"].to_numpy()] = True
        return mask

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


def _postings_of(number: int, table: pa.Table) -> pa.Table:
    lists = table["entities"].combine_chunks()
    rows = pc.list_parent_indices(lists)
    columns = [
        pc.list_flatten(lists),
        table["key"].take(rows),
        pa.array(np.full(len(rows), number, np.int32)),
        rows.cast(pa.int32()),
    ]
    return pa.table(columns, schema=POSTINGS)


def _counts(postings: pa.Table) -> pa.Table:
    counts = postings.group_by("entity").aggregate([("key", "count"), ("key", "count_distinct")])
    counts = counts.rename_columns({"key_count": "captions", "key_count_distinct": "images"})
    return counts.select(["entity", "captions", "images"]).sort_by(
        [("captions", "descending"), ("entity", "ascending")]
    )
