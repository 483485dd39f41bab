"""The list of images to fetch: the captions of entities/ joined to one row per image, cut into shards by key.

Memory stays flat: each part is sorted by key into a scratch file that is memory-mapped, and a shard is a range of keys,
a slice of every sorted part.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.manifest import Manifest
from curation.schema import NOUNS, SAMPLES

_COLUMNS = ["key", "caption_id", "url", "image", "caption"]
_CAPTION = np.dtype([("key", np.int64), ("caption_id", np.int32)])

IMAGES = pa.schema([("key", pa.int64()), ("url", pa.string()), ("image", pa.string()), SAMPLES.field("captions")])
"""One row per image to fetch. Exactly one of url and image is set; captions are ordered by their caption_id."""


class ImageList:
    """The images of entities/, or of all captions/, in shards of `shard_size` in order of key.

    `manifest` is that of the folder whose images are listed.
    """

    def __init__(self, data_dir: Path, manifest: Manifest, shard_size: int, scratch_dir: Path) -> None:
        scratch_dir.mkdir(parents=True, exist_ok=True)
        read = _with_mentions if manifest.stage == "ingest" else _entities
        self._parts = [_sorted_by_key(read(data_dir, part.name), part.name, scratch_dir) for part in manifest.parts]
        self._keys = [part["key"].to_numpy() for part in self._parts]
        self.keys = np.unique(np.concatenate(self._keys)) if self._keys else np.empty(0, np.int64)
        self.num_images = len(self.keys)
        self._first_keys = self.keys[::shard_size]

    @property
    def num_shards(self) -> int:
        """Number of shards; all but the last are full."""
        return len(self._first_keys)

    @property
    def has_paths(self) -> bool:
        """Whether an image is named by its path and not by a URL."""
        return any(part["image"].null_count < len(part) for part in self._parts)

    def shard(self, number: int) -> pa.Table:
        """Return the images of a shard (`IMAGES`), sorted by key."""
        bounds = [np.searchsorted(keys, self._first_keys[number : number + 2]) for keys in self._keys]
        slices = [
            part.slice(bound[0], (bound[1] if len(bound) == 2 else len(part)) - bound[0])
            for part, bound in zip(self._parts, bounds, strict=True)
        ]
        rows = pa.concat_tables(slices).sort_by([("key", "ascending"), ("caption_id", "ascending")]).combine_chunks()
        _, first = np.unique(rows["key"].to_numpy(), return_index=True)
        captions = pa.StructArray.from_arrays(
            [_one_chunk(rows[name]) for name in ("caption", "mentions", "nouns")],
            fields=IMAGES.field("captions").type.value_type,
        )
        joined = pa.ListArray.from_arrays(pa.array([*first, len(rows)], pa.int32()), captions)
        return pa.table(
            [*(pc.take(rows[name], pa.array(first)) for name in ("key", "url", "image")), joined], schema=IMAGES
        )


def _entities(data_dir: Path, name: str) -> pa.Table:
    path = data_dir / "entities" / name
    if NOUNS.name in pq.read_schema(path).names:
        return pq.read_table(path, columns=[*_COLUMNS, "mentions", NOUNS.name])
    entities = pq.read_table(path, columns=[*_COLUMNS, "mentions"])
    return entities.append_column(NOUNS, pa.nulls(len(entities), NOUNS.type))


def _with_mentions(data_dir: Path, name: str) -> pa.Table:
    """Return all captions of a part, with the mentions and nouns of those that name an entity."""
    captions, entities = pq.read_table(data_dir / "captions" / name, columns=_COLUMNS), _entities(data_dir, name)
    is_named = np.isin(_ids(captions), _ids(entities), assume_unique=True)
    # The rows of entities/ are in the order of captions/.
    rows = pa.array(np.cumsum(is_named) - 1, mask=~is_named)
    for found in ("mentions", NOUNS.name):
        captions = captions.append_column(found, entities[found].combine_chunks().take(rows))
    return captions


def _ids(table: pa.Table) -> npt.NDArray[np.void]:
    ids = np.empty(table.num_rows, _CAPTION)
    ids["key"], ids["caption_id"] = table["key"].to_numpy(), table["caption_id"].to_numpy()
    return ids


def _sorted_by_key(captions: pa.Table, name: str, scratch_dir: Path) -> pa.Table:
    table = captions.sort_by([("key", "ascending"), ("caption_id", "ascending")])
    path = scratch_dir / f"{Path(name).stem}.arrow"
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
