"""Readers of stored images and of their partners, and the writer of samples.arrow.

Readers hold memory maps and paths, no open files: they can be used from many threads, pickled, and inherited by a fork.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property
from itertools import accumulate, count, takewhile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curation.folder import map_table, open_folder
from curation.manifest import replacing
from curation.schema import SAMPLES
from curation.vocabulary import Mention as Mention
from curation.vocabulary import Span

SAMPLES_FILE = "samples.arrow"
PARTNERS_FILE = "partners.arrow"
FILES = "files"
"""Link to the folder of images that were left where they lie."""
MAX_FILE_BYTES = 2 << 30

_DIGEST = b"digest"
_SAMPLES_DIGEST = b"samples_digest"
_ENTITY_NAMES = b"entities"
_SEPARATOR = "\n"
_WAY_OUT = "put it back, or run `ovseg download --verify` on the data folder and then its download: it fetches it alone"


class Caption(NamedTuple):
    """A caption of a stored image and the entities that it names."""

    text: str
    mentions: list[Mention]
    nouns: list[Span] | None = None
    """spans of all its nouns; None when the captions were parsed without them"""


class _Batch(NamedTuple):
    """Where the images of one batch of samples.arrow lie: views into the mapped file, nothing of it in memory."""

    key: NDArray[np.int64]
    shard: NDArray[np.int32]
    """meaningless where there is a path"""
    path: pa.StringArray
    offset: NDArray[np.int64]
    length: NDArray[np.int32]

    @classmethod
    def of(cls, batch: pa.RecordBatch) -> _Batch:
        """Return the views of a batch that has rows."""
        key, shard, offset, length = (_view(batch.column(name)) for name in ("key", "shard", "offset", "length"))
        return cls(key, shard, batch.column("path"), offset, length)


class Samples:
    """The stored images of a folder, by row; rows are sorted by key.

    The folder is a path, or an address of fsspec's (s3://bucket/data/images): images are then read by range.

    Raises: FileNotFoundError when the folder has no samples.arrow, ValueError when another version wrote it.
    """

    def __init__(self, images_dir: Path | str) -> None:
        self.images_dir = images_dir
        self._folder = open_folder(images_dir)
        if not self._folder.has(SAMPLES_FILE):
            raise FileNotFoundError(
                f"{images_dir}/{SAMPLES_FILE}: not there; run the download of this data folder (again) first"
            )
        more = takewhile(self._folder.has, map(_samples_name, count(1)))
        names = [SAMPLES_FILE, *more]
        self.table = pa.concat_tables([map_table(self._folder.path(name)) for name in names])
        if (columns := self.table.schema.names) != SAMPLES.names:
            raise ValueError(
                f"{images_dir}/{SAMPLES_FILE}: written by another version, with columns {', '.join(columns)}, expected "
                f"{', '.join(SAMPLES.names)}; remove images/ and run its stage again"
            )
        self.digest: str = self.table.schema.metadata[_DIGEST].decode()
        """digest of keys and captions in order: with the same digest, a row is the same image"""

    def __len__(self) -> int:
        return len(self.table)

    def __reduce__(self) -> tuple[type[Samples], tuple[Path | str]]:
        return Samples, (self.images_dir,)

    @cached_property
    def keys(self) -> NDArray[np.int64]:
        """Keys of all rows, ascending. Shapes: [rows]."""
        return np.concatenate([np.empty(0, np.int64), *(batch.key for batch in self._batches)])

    def position(self, key: int) -> int:
        """Return the row of a key.

        Raises: KeyError when no image with this key is stored.
        """
        # Batch by batch, since all keys as one array are a copy for every process that reads.
        number = bisect_right(self._first_keys, key) - 1
        if number >= 0:
            keys = self._batches[number].key
            at = int(keys.searchsorted(key))
            if at < len(keys) and keys[at] == key:
                return self._first_rows[number] + at
        raise KeyError(f"key {key}: no such image in {self.images_dir}; failures.parquet there may name the reason")

    def read(self, row: int) -> bytes:
        """Return the image of a row: a JPEG, or the file as it lies in its folder.

        Raises: FileNotFoundError or ValueError, naming the file and the way out, when it is gone or too short.
        """
        number = bisect_right(self._first_rows, row) - 1
        batch, at = self._batches[number], row - self._first_rows[number]
        offset, length = int(batch.offset[at]), int(batch.length[at])
        path = batch.path[at].as_py()
        name = shard_name(int(batch.shard[at])) if path is None else f"{FILES}/{path}"
        try:
            content = self._folder.read(name, offset, length)
        except FileNotFoundError:
            raise FileNotFoundError(f"{self.images_dir}/{name}: not there; {_WAY_OUT}") from None
        if len(content) < length:
            raise ValueError(
                f"{self.images_dir}/{name}: image {batch.key[at]} ends at byte {offset + length}, the file "
                f"at byte {self._folder.size(name)}; {_WAY_OUT}"
            )
        return content

    @cached_property
    def _batches(self) -> list[_Batch]:
        return [_Batch.of(batch) for batch in self.table.to_batches() if batch.num_rows]

    @cached_property
    def _first_keys(self) -> list[int]:
        return [int(batch.key[0]) for batch in self._batches]

    @cached_property
    def _first_rows(self) -> list[int]:
        return [0, *accumulate(len(batch.key) for batch in self._batches)][:-1]

    def captions(self, row: int) -> list[Caption]:
        """Return the captions of a row, ordered by their caption_id."""
        return [
            Caption(
                caption["text"],
                [Mention(**mention) for mention in caption["mentions"] or ()],
                None if caption["nouns"] is None else [(noun["start"], noun["end"]) for noun in caption["nouns"]],
            )
            for caption in self.table["captions"][row].as_py()
        ]


class Partners:
    """The partners of each row of `samples`.

    Raises: ValueError when they were drawn for other samples.
    """

    def __init__(self, pairs_dir: Path, samples: Samples) -> None:
        self.pairs_dir = Path(pairs_dir)
        self.samples = samples
        path = self.pairs_dir / PARTNERS_FILE
        if not path.exists():
            raise FileNotFoundError(f"{path}: not there; run the pairs stage of this data folder (again) first")
        self._table = map_table(path)
        found = self._table.schema.metadata[_SAMPLES_DIGEST].decode()
        if found != samples.digest:
            raise ValueError(
                f"{path}: drawn for samples with digest {found}, found {samples.digest} in {samples.images_dir}; "
                f"remove {self.pairs_dir} and run the pairs stage again"
            )
        self.entity_names = self._table.schema.metadata[_ENTITY_NAMES].decode().split(_SEPARATOR)

    def __len__(self) -> int:
        return len(self._table)

    def __reduce__(self) -> tuple[type[Partners], tuple[Path, Samples]]:
        return Partners, (self.pairs_dir, self.samples)

    def of(self, row: int) -> tuple[NDArray[np.int32], list[str]]:
        """Return the partner rows of a row and the entity that each shares with it; both empty without partners."""
        rows, codes = (_view(self._table[name][row].values) for name in ("rows", "entities"))
        is_pair = rows >= 0
        return rows[is_pair], [self.entity_names[code] for code in codes[is_pair]]


def shard_name(shard: int) -> str:
    """Return the file name of a webdataset shard, `00012.tar`."""
    return f"{shard:05d}.tar"


def write_samples(images_dir: Path, tables: Iterable[pa.Table], digest: str) -> None:
    """Write tables (`SAMPLES`) that follow each other in order of key as samples.arrow, when large as several files."""
    schema = SAMPLES.with_metadata({_DIGEST: digest})
    with ExitStack() as files:
        writer: Any = None
        size = number = 0
        for table in tables:
            if writer is None or size + table.nbytes > MAX_FILE_BYTES:
                name = _samples_name(number) if number else SAMPLES_FILE
                writer = files.enter_context(_new_file(files.enter_context(replacing(images_dir / name)), schema))
                size, number = 0, number + 1
            writer.write_table(table.cast(schema).combine_chunks())
            size += table.nbytes


def write_partners(
    pairs_dir: Path,
    chunks: Iterable[tuple[NDArray[np.int32], NDArray[np.int32]]],
    names: list[str],
    samples_digest: str,
) -> None:
    """Write partners.arrow from chunks of partner rows and entity codes, in order of samples.arrow; -1 is no partner.

    Shapes: each chunk ([rows, K], [rows, K]); codes count within `names`.
    """
    metadata = {_SAMPLES_DIGEST: samples_digest, _ENTITY_NAMES: _SEPARATOR.join(names)}
    with ExitStack() as files:
        writer: Any = None
        for rows, codes in chunks:
            columns = {
                name: pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1), pa.int32()), values.shape[1])
                for name, values in (("rows", rows), ("entities", codes))
            }
            table = pa.table(columns).replace_schema_metadata(metadata)
            if writer is None:
                path = files.enter_context(replacing(pairs_dir / PARTNERS_FILE))
                writer = files.enter_context(_new_file(path, table.schema))
            writer.write_table(table)


def _view(numbers: pa.Array) -> NDArray[Any]:
    """Return numbers as they lie in the file; those of nulls mean nothing."""
    # to_numpy would load pandas, 30 MB in every process that reads, and copy where a value is null.
    values = np.frombuffer(numbers.buffers()[1], numbers.type.to_pandas_dtype())
    return values[numbers.offset : numbers.offset + len(numbers)]


def _samples_name(number: int) -> str:
    return f"samples-{number:05d}.arrow"


def _new_file(path: Path, schema: pa.Schema) -> Any:
    return pa.ipc.new_file(str(path), schema)
