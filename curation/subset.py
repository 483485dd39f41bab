"""Subset manifests: which captions of a public table a data set holds, without its captions, addresses and images.

Who has the table and the manifest can make the same data set again: `ovseg ingest TABLE --subset FILE`.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from curation.manifest import read_manifest, replacing
from curation.schema import SUBSET, address_digest, caption_digest

_TABLES = b"tables"


def write_subset(data_dir: Path, path: Path) -> int:
    """Write the manifest of the captions of entities/, and return their number.

    The names and digests of the tables that they are from stand in the file's metadata.
    """
    entities = read_manifest(data_dir / "entities")
    tables = json.dumps(read_manifest(data_dir / "captions").inputs)
    parts = [_subset_of(data_dir / "entities" / part.name) for part in entities.parts]
    rows = pa.concat_tables([SUBSET.empty_table(), *parts]).sort_by([("key", "ascending"), ("caption_id", "ascending")])
    with replacing(path) as temporary:
        pq.write_table(rows.replace_schema_metadata({_TABLES: tables}), temporary, compression="zstd")
    return int(rows.num_rows)


class Subset:
    """The captions of a manifest, found by their digests. Memory: 20 bytes a caption of the subset."""

    def __init__(self, path: Path) -> None:
        table = _read(path).sort_by("digest")
        self.tables: dict[str, str] = json.loads((table.schema.metadata or {}).get(_TABLES, b"{}"))
        self._digests = table["digest"].to_numpy()
        self._keys = table["key"].to_numpy()
        self._caption_ids = table["caption_id"].to_numpy()
        self._is_found = np.zeros(len(table), np.bool_)

    def caption_ids(
        self, keys: npt.NDArray[np.int64], digests: npt.NDArray[np.uint64]
    ) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
        """Return which captions are in the subset, and the caption_id of each that is; remember them as found."""
        if not len(self._digests):
            return np.zeros(len(keys), np.bool_), np.zeros(len(keys), np.int32)
        at = np.minimum(self._digests.searchsorted(digests), len(self._digests) - 1)
        is_in = (self._digests[at] == digests) & (self._keys[at] == keys)
        self._is_found[at[is_in]] = True
        return is_in, self._caption_ids[at]

    @property
    def num_missing(self) -> int:
        """Captions of the subset that have not been found."""
        return int((~self._is_found).sum())

    @property
    def num_images(self) -> int:
        """Images of the captions that have been found."""
        return len(np.unique(self._keys[self._is_found]))


def _read(path: Path) -> pa.Table:
    table = pq.read_table(path)
    if not table.schema.equals(SUBSET, check_metadata=False):
        raise ValueError(f"{path}: found columns {table.schema.names}; expected a manifest that `ovseg subset` wrote")
    return table


def _subset_of(part: Path) -> pa.Table:
    table = pq.read_table(part, columns=["key", "caption_id", "url", "image", "caption"])
    digests = [
        caption_digest(address_digest(url or image), caption)
        for url, image, caption in zip(*(table[name].to_pylist() for name in ("url", "image", "caption")), strict=True)
    ]
    return pa.table([table["key"], table["caption_id"], pa.array(digests, pa.uint64())], schema=SUBSET)
