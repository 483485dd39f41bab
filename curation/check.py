"""The check of stored images: every shard against its digest, and of a damaged one every image against its own.

A damaged shard is withdrawn: the download then fetches it again, alone.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq
import xxhash

from curation.manifest import Part, finished_part, withdraw_part
from curation.progress import Progress
from curation.schema import file_digest
from curation.shard import account_name

logger = logging.getLogger(__name__)


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
    """Return the finished shards of a folder that are missing, cut or changed.

    Raises: FileNotFoundError when the folder holds no finished shard.
    """
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

    Raises: ValueError that names each damaged shard and the way out.
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
    return len(list(images_dir.glob("*.tar.json")))


def _damage(images_dir: Path, name: str, part: Part | None) -> Damage | None:
    path = images_dir / name
    if part is None:
        return Damage(name, "the file is not there", [])
    if file_digest(path) == part.digest:
        return None
    keys = []
    account = pq.read_table(images_dir / account_name(name), columns=["key", "offset", "length", "digest"])
    with path.open("rb") as file:
        for row in account.to_pylist():
            if row["digest"] is not None:
                file.seek(row["offset"])
                if xxhash.xxh3_128_hexdigest(file.read(row["length"])) != row["digest"]:
                    keys.append(row["key"])
    hit = f"{len(keys)} of {part.rows} images are not what was stored" if keys else "no image is hit, but its headers"
    return Damage(name, f"{hit}{f', the first has key {keys[0]}' if keys else ''}", keys)
