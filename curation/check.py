"""The check of stored images: every shard against its digest, and of a damaged one every image against its own.

Images that were left in their folder are each compared with their own digest, and count with their shard. A damaged
shard is withdrawn: the download then makes it again, alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curation.folder import inside
from curation.images import FILES
from curation.manifest import MANIFEST, Part, finished_part, read_manifest, withdraw_part
from curation.progress import Progress
from curation.schema import file_digest
from curation.shard import account_name
from curation.verify import ACCOUNT

logger = logging.getLogger(__name__)

_MOST_NAMED = 10


@dataclass(frozen=True)
class Damage:
    """A shard that is not what it was when it was finished."""

    name: str
    """file name of the shard"""
    reason: str
    """what is wrong with it"""
    keys: list[int]
    """keys of the images that are hit; none when only the space between images is"""


def damaged_shards(images_dir: Path) -> list[Damage]:
    """Return the finished shards of a folder that are missing, cut or changed, in the tar or in files outside it.

    Raises: FileNotFoundError when the folder holds no finished shard, ValueError when another version made it.
    """
    if (images_dir / MANIFEST).exists():
        read_manifest(images_dir)
    names = sorted(path.name.removesuffix(".json") for path in images_dir.glob("*.tar.json"))
    if not names:
        raise FileNotFoundError(f"{images_dir}: holds no finished shard; run `ovseg download` first")
    damaged = []
    with Progress("check", len(names)) as progress:
        for name in names:
            damage = _damage(images_dir, name, finished_part(images_dir, name))
            damaged += [damage] if damage else []
            progress.part(name, done=1, read=1, kept=0 if damage else 1, drops={"damaged": len(damaged)})
    return damaged


def check_images(data_dir: Path) -> int:
    """Withdraw the damaged shards of a data folder; return the number of shards when there are none.

    Raises: ValueError that names each damaged shard and the way out; FileNotFoundError when shards are whole and others
    missing, since the download has not ended or shards were withdrawn before.
    """
    images_dir = Path(data_dir) / "images"
    damaged = damaged_shards(images_dir)
    for damage in damaged:
        withdraw_part(images_dir, damage.name)
    if damaged:
        listed = "\n".join(f"  {damage.name}: {damage.reason}" for damage in damaged)
        raise ValueError(
            f"{images_dir}: {len(damaged)} damaged:\n{listed}\nrun the download of this folder again: it fetches "
            f"{'this shard' if len(damaged) == 1 else 'these shards'} alone"
        )
    num_shards = len(list(images_dir.glob("*.tar.json")))
    if not (images_dir / MANIFEST).exists():
        raise FileNotFoundError(
            f"{images_dir}: {num_shards} shards are whole, others are missing or were found damaged before; run the "
            f"download of this folder again: it fetches them alone"
        )
    return num_shards


def _damage(images_dir: Path, name: str, part: Part | None) -> Damage | None:
    if part is None:
        return Damage(name, "the file is not there", [])
    try:
        account = pq.read_table(images_dir / account_name(name), schema=ACCOUNT)
    except (OSError, pa.ArrowInvalid) as error:
        return Damage(name, f"its account {account_name(name)} cannot be read: {error}", [])
    rows = account.filter(pc.field("cause").is_null()).to_pylist()
    files = [row for row in rows if row["path"] and not _is_as_stored(images_dir / FILES / inside(row["path"]), row)]
    reasons = [_files_reason([row["path"] for row in files])] if files else []
    hit = []
    if file_digest(images_dir / name) != part.digest:
        hit = [row["key"] for row in rows if not row["path"] and not _is_as_stored(images_dir / name, row)]
        reasons.append(_shard_reason(hit, part.rows))
    return Damage(name, "; ".join(reasons), [row["key"] for row in files] + hit) if reasons else None


def _files_reason(paths: list[str]) -> str:
    more = f" and {len(paths) - _MOST_NAMED:,} more" if len(paths) > _MOST_NAMED else ""
    return f"gone or not what was stored, below {FILES}/: {', '.join(paths[:_MOST_NAMED])}{more}"


def _shard_reason(keys: list[int], num_images: int) -> str:
    if not keys:
        return "no image is hit, but its headers"
    return f"{len(keys)} of {num_images} images are not what was stored, the first has key {keys[0]}"


def _is_as_stored(path: Path, row: Mapping[str, Any]) -> bool:
    """Return whether the bytes of an account's row (`ACCOUNT`) are still there, in a tar or a file of its own."""
    try:
        with path.open("rb") as file:
            file.seek(row["offset"])
            # Of a file of its own, everything: it may have grown.
            content = file.read() if row["path"] else file.read(row["length"])
    except OSError:
        return False
    return bool(xxhash.xxh3_128_hexdigest(content) == row["digest"])
