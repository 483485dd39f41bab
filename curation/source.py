"""Where a caption table lies: a file, a folder, a glob, an fsspec address, an http address, or a data set by its name.

Files are told by their first bytes, not by their names: gzip, Zstandard and Parquet say what they are.
"""

from __future__ import annotations

import io
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

import pyarrow as pa
import xxhash

from curation.folder import reach
from curation.schema import file_digest
from curation.transfer import fetch_table

logger = logging.getLogger(__name__)

TABLES = "tables"
"""Folder in the data folder with tables that were fetched by http."""
SUFFIXES = (".tsv", ".tab", ".csv", ".parquet", ".jsonl", ".ndjson", ".json")
"""What is read of a folder, also with .gz or .zst behind it."""

_PACKED = (".gz", ".zst", ".zstd")
_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
_BUFFER_BYTES = 1 << 18
# What file systems say of a file that changes when its content does.
_MARKS = ("size", "etag", "md5hash", "content-md5", "crc32c", "generation", "last-modified", "lastmodified", "mtime")

_GOOGLES_TERMS = (
    "The table is Google's: free to use for any purpose, as is, with acknowledgement of Google LLC as its source "
    "appreciated. The images belong to their owners, each under terms of its own."
)


@dataclass(frozen=True)
class Published:
    """A caption table that its authors publish at a fixed address."""

    title: str
    """name of the data set"""
    url: str
    """the authors' own address of the table"""
    num_rows: int
    """captions in it, as its authors say"""
    num_bytes: int
    """about the size of the file (bytes), for plans; what counts is what the server says"""
    terms: str
    """what its licence asks"""


PUBLISHED = {
    "cc12m": Published(
        title="Conceptual 12M",
        url="https://storage.googleapis.com/conceptual_12m/cc12m.tsv",
        num_rows=12_423_374,
        num_bytes=2_700_000_000,
        terms=_GOOGLES_TERMS,
    ),
    "cc3m": Published(
        title="Conceptual Captions",
        url="https://storage.googleapis.com/gcc-data/Train/GCC-training.tsv",
        num_rows=3_318_333,
        num_bytes=500_000_000,
        terms=_GOOGLES_TERMS,
    ),
}


@dataclass(frozen=True)
class TableFile:
    """One file of a caption table."""

    name: str
    """what errors and refused.parquet call it: its path below the folder that was given, else its file name"""
    path: str
    """its address in its file system"""
    size: int
    """bytes as they are stored"""
    filesystem: Any
    """the fsspec file system that holds it"""

    def open(self) -> tuple[BinaryIO, BinaryIO]:
        """Return the content, unpacked, and the stored bytes beneath it, whose position tells the progress."""
        stored = cast(BinaryIO, self.filesystem.open(self.path, "rb"))
        head = stored.read(4)
        stored.seek(0)
        codec = next((name for magic, name in _MAGIC.items() if head.startswith(magic)), None)
        unpacked = pa.CompressedInputStream(stored, codec) if codec else stored
        return cast(BinaryIO, io.BufferedReader(unpacked, _BUFFER_BYTES)), stored

    def digest(self) -> str:
        """Return a digest that changes with the content: of its bytes if it is local, else of what its store says."""
        if _is_local(self.filesystem):
            return file_digest(Path(self.path))
        known = {str(name).lower(): value for name, value in self.filesystem.info(self.path).items()}
        marks = [f"{name}={known[name]}" for name in _MARKS if known.get(name) is not None]
        return xxhash.xxh3_128_hexdigest("\n".join(marks).encode())


def find_tables(address: str, data_dir: Path) -> list[TableFile]:
    """Return the files of a table in order of their names; what lies behind http is fetched into data_dir/tables/.

    Raises: FileNotFoundError when nothing is there, else as `reach`.
    """
    if address in PUBLISHED and not Path(address).exists():
        logger.info("%s: %s. %s", address, PUBLISHED[address].title, PUBLISHED[address].terms)
        address = PUBLISHED[address].url
    if address.startswith(("http://", "https://")):
        address = str(fetch_table(address, data_dir / TABLES))
    filesystem, path = reach(address)
    if filesystem.isdir(path):
        return _in_folder(address, filesystem, path)
    if filesystem.exists(path):
        return [_table_file(filesystem, path, path.rsplit("/", 1)[0])]
    found = sorted(filesystem.glob(path)) if filesystem.protocol and any(mark in path for mark in "*?[") else []
    if not found:
        raise FileNotFoundError(
            f"{address}: no such file, folder or glob; tables known by name are {', '.join(PUBLISHED)}"
        )
    above = path[: min(path.index(mark) for mark in "*?[" if mark in path)].rsplit("/", 1)[0]
    return [_table_file(filesystem, file, above) for file in found if filesystem.isfile(file)]


def _in_folder(address: str, filesystem: Any, folder: str) -> list[TableFile]:
    files = [path for path in sorted(filesystem.find(folder)) if not _is_hidden(path.removeprefix(folder))]
    tables = [path for path in files if _plain_suffix(path) in SUFFIXES]
    if not tables:
        raise FileNotFoundError(
            f"{address}: holds {len(files)} files, none of them a table ({', '.join(SUFFIXES)}, also .gz and .zst); "
            f"name files by a glob to read them all the same"
        )
    if others := [path.rsplit("/", 1)[1] for path in files if path not in set(tables)]:
        logger.info(
            "%s: %d tables; not read: %s", address, len(tables), ", ".join(others[:5] + ["..."] * (len(others) > 5))
        )
    return [_table_file(filesystem, path, folder.rstrip("/")) for path in tables]


def _table_file(filesystem: Any, path: str, above: str) -> TableFile:
    return TableFile(path.removeprefix(f"{above}/"), path, int(filesystem.size(path) or 0), filesystem)


def _plain_suffix(path: str) -> str:
    name = path.lower()
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return Path(name).suffix


def _is_hidden(path: str) -> bool:
    return any(piece.startswith((".", "_")) for piece in path.split("/"))


def _is_local(filesystem: Any) -> bool:
    return "file" in (filesystem.protocol if isinstance(filesystem.protocol, tuple) else (filesystem.protocol,))
