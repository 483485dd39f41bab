"""What makes a stage's folder trustworthy: parts written whole, a manifest written last, other configs refused.

The order on disk is the protocol. `started.json` names stage, config and inputs before the first part; a part is
renamed into place and then its marker `<part>.json`; `manifest.json` comes last. Whatever is killed, a file that has
its marker is whole, and a folder that has its manifest is finished.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.folder import inside
from curation.schema import SCHEMA_VERSION, file_digest

MANIFEST = "manifest.json"
STARTED = "started.json"


@dataclass(frozen=True)
class Part:
    """A finished file of a stage's folder."""

    name: str
    """file name inside the folder"""
    rows: int
    """rows (captions, images, pairs) in the file"""
    digest: str
    """xxh3-128 of the file's bytes, hexadecimal"""
    counts: dict[str, int] = field(default_factory=dict)
    """what happened on the way, reason -> rows"""

    def __post_init__(self) -> None:
        inside(self.name)


@dataclass(frozen=True)
class Manifest:
    """The finished state of a stage's folder."""

    stage: str
    """name of the stage"""
    config: dict[str, Any]
    """the config that made the folder"""
    inputs: dict[str, str]
    """name of each input -> its digest"""
    parts: list[Part]
    """files in order"""
    counts: dict[str, int]
    """sums of the parts' counts, and the stage's own"""
    schema_version: int = SCHEMA_VERSION
    """version of the column types"""

    @property
    def rows(self) -> int:
        """Rows in all parts."""
        return sum(part.rows for part in self.parts)

    @property
    def digest(self) -> str:
        """Digest of the content: parts, not counts or times."""
        content = json.dumps([[part.name, part.rows, part.digest] for part in self.parts])
        return xxhash.xxh3_128_hexdigest(content.encode())


def open_stage(folder: Path, stage: str, config: Mapping[str, Any], inputs: Mapping[str, str]) -> Manifest | None:
    """Return the folder's manifest when this stage is finished there; else mark it as begun and return None.

    A finished folder of which a part has gone missing counts as begun: only the missing parts are made again.

    Raises: ValueError when the folder was made, or begun, with another config, other inputs or another schema.
    """
    wanted = _plain({"stage": stage, "config": config, "inputs": inputs, "schema_version": SCHEMA_VERSION})
    started = folder / STARTED
    if started.exists():
        found = json.loads(started.read_text())
        if difference := _difference(found, wanted):
            raise ValueError(
                f"{folder}: made by stage '{found.get('stage')}' with {difference}; "
                f"remove the folder to make it anew, or choose another --out"
            )
    else:
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(started) as path:
            path.write_text(json.dumps(wanted, indent=2))
    if (folder / MANIFEST).exists():
        manifest = read_manifest(folder)
        if all((folder / part.name).exists() for part in manifest.parts):
            return manifest
    for left_over in folder.glob(".*.tmp"):
        left_over.unlink(missing_ok=True)
    return None


def close_stage(folder: Path, parts: Iterable[Part], counts: Mapping[str, int] | None = None) -> Manifest:
    """Write the manifest of a folder begun by `open_stage`, from its parts and the stage's own counts."""
    started = json.loads((folder / STARTED).read_text())
    parts = list(parts)
    totals: Counter[str] = Counter(counts or {})
    for part in parts:
        totals.update(part.counts)
    manifest = Manifest(started["stage"], started["config"], started["inputs"], parts, dict(totals))
    with replacing(folder / MANIFEST) as path:
        path.write_text(json.dumps(asdict(manifest), indent=2))
    return manifest


def read_manifest(folder: Path) -> Manifest:
    """Return the manifest of a finished folder.

    Raises: FileNotFoundError that names the folder and the way out when the stage has not finished, ValueError when
    its tables have other columns than this version's.
    """
    path = folder / MANIFEST
    if not path.exists():
        state = "begun but not finished" if (folder / STARTED).exists() else "not there"
        raise FileNotFoundError(f"{path}: the stage that makes {folder.name}/ is {state}; run it (again) first")
    content = json.loads(path.read_text())
    if content["schema_version"] != SCHEMA_VERSION:
        raise ValueError(
            f"{path}: tables of schema version {content['schema_version']}, expected {SCHEMA_VERSION}; "
            f"remove {folder.name}/ and run its stage again"
        )
    return Manifest(**{**content, "parts": [Part(**part) for part in content["parts"]]})


def write_part(
    folder: Path, name: str, table: pa.Table, counts: Mapping[str, int] | None = None, **parquet: Any
) -> Part:
    """Write a table as one Parquet part and its marker; extra arguments go to `pyarrow.parquet.write_table`."""
    with replacing(folder / name) as path:
        pq.write_table(table, path, compression="zstd", **parquet)
    return mark_part(folder, name, table.num_rows, counts)


def mark_part(folder: Path, name: str, rows: int, counts: Mapping[str, int] | None = None) -> Part:
    """Write the marker of a file that lies finished in the folder."""
    part = Part(name, rows, file_digest(folder / name), dict(counts or {}))
    with replacing(_marker(folder, name)) as path:
        path.write_text(json.dumps(asdict(part)))
    return part


def finished_part(folder: Path, name: str) -> Part | None:
    """Return a part that is finished in the folder, or None."""
    marker = _marker(folder, name)
    if not (marker.exists() and (folder / name).exists()):
        return None
    return Part(**json.loads(marker.read_text()))


def withdraw_part(folder: Path, name: str) -> None:
    """Let a finished part, and with it the folder, count as unfinished; the file stays until it is made again."""
    (folder / MANIFEST).unlink(missing_ok=True)
    _marker(folder, name).unlink(missing_ok=True)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends without an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _marker(folder: Path, name: str) -> Path:
    return folder / f"{name}.json"


def _plain(content: Mapping[str, Any]) -> dict[str, Any]:
    # Through JSON and back, so that tuples and lists, Path and str compare equal.
    plain: dict[str, Any] = json.loads(json.dumps(content, default=str))
    return plain


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    def leaves(content: Any, prefix: str = "") -> dict[str, Any]:
        if isinstance(content, Mapping):
            return {k: v for name, child in content.items() for k, v in leaves(child, f"{prefix}{name}.").items()}
        return {prefix.rstrip("."): content}

    have, want = leaves(found), leaves(wanted)
    names = [name for name in {**have, **want} if have.get(name) != want.get(name)]
    return ", ".join(f"{name} = {have.get(name)!r} (now {want.get(name)!r})" for name in names)
