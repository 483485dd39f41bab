"""Ready-made webdataset shards of img2dataset's, taken into a data folder as they are: linked, not copied.

Every image is decoded once, as after a download; what the shards hold beyond the captions' images stays unused, and
nothing is fetched. Since the shards stay as they are, images that would have to be turned or brought to 8 bits are left
out.
"""

from __future__ import annotations

import io
import json
import logging
import os
import shutil
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.benchmark_images import benchmarks_digest
from curation.download import DownloadConfig
from curation.fetch import FetchError
from curation.finish import finish
from curation.gather import Accounts, map_accounts
from curation.image_bytes import is_upright, opened
from curation.image_list import ImageList
from curation.images import shard_name
from curation.manifest import Manifest, Part, finished_part, mark_part, open_stage, read_manifest, replacing
from curation.progress import Progress
from curation.schema import image_key
from curation.shard import SCRATCH, account_name
from curation.verify import ACCOUNT, images_of, look_at
from curation.workers import Workers

logger = logging.getLogger(__name__)

NOT_IN_SHARDS = "not_in_shards"
"""Cause of an image that no shard names."""
FAILED_BEFORE = "failed_before"
"""Cause of an image that img2dataset could not store; the detail is what it said."""
NEEDS_COPY = "needs_copy"
"""Cause of an image that shows what is meant only turned by its EXIF, or brought to 8 bits."""

_REPORT = ["key", "url", "status", "error_message", "original_width", "original_height"]


@dataclass(frozen=True)
class AdoptTask:
    """One ready-made shard for one worker."""

    number: int
    """number that the shard gets"""
    tar_path: Path
    """where it lies"""
    images_dir: Path
    """folder of the stage"""
    max_pixels: int
    """pixels of an image at most"""

    def __str__(self) -> str:
        return f"shard {self.tar_path.name}"


def adopt(data_dir: Path, shards_dir: Path, config: DownloadConfig) -> Manifest:
    """Make images/ from the tars in a folder, for the captions of entities/ (or captions/), and return the manifest.

    Images are found by their address: the `url` of img2dataset's Parquet beside a tar, else of the samples' JSON.

    Raises: FileNotFoundError without tars, ValueError when images/ was made otherwise.
    """
    data_dir, images_dir = Path(data_dir).resolve(), Path(data_dir).resolve() / "images"
    tars = sorted(Path(shards_dir).resolve().glob("*.tar"))
    if not tars:
        raise FileNotFoundError(f"{shards_dir}: holds no .tar; name the folder that img2dataset wrote shards into")
    listed = read_manifest(data_dir / ("captions" if config.everything else "entities"))
    entities = read_manifest(data_dir / "entities")
    sizes = json.dumps([[path.name, path.stat().st_size] for path in tars])
    inputs = {"entities": entities.digest, "shards": xxhash.xxh3_128_hexdigest(sizes.encode())}
    inputs |= {"benchmarks": benchmarks_digest(config.benchmarks)} if config.benchmarks else {}
    content = {
        "everything": config.everything,
        "max_pixels": config.max_pixels,
        "duplicate_bits": config.duplicate_bits,
        "benchmarks": config.benchmarks,
    }
    if done := open_stage(images_dir, "download", content, inputs):
        return done
    scratch_dir = images_dir / SCRATCH
    shutil.rmtree(scratch_dir, ignore_errors=True)
    images = ImageList(data_dir, listed, config.shard_size, scratch_dir / "sorted")
    parts = _parts(tars, images_dir, config)
    paths = [images_dir / account_name(part.name) for part in parts]
    accounts = _of_list(map_accounts(paths, scratch_dir / "adopted.arrow"), images, scratch_dir)
    manifest = finish(images, images_dir, parts, accounts, config, entities.digest)
    shutil.rmtree(scratch_dir, ignore_errors=True)
    return manifest


def adopt_shard(task: AdoptTask) -> tuple[int, Part]:
    """Link one tar, decode its images and write its account; return its number and part.

    Raises: ValueError when the tar is damaged.
    """
    name = shard_name(task.number)
    found = {
        name.rpartition(".")[0]: _outcome(task, offset, content) for name, offset, content in images_of(task.tar_path)
    }
    rows: dict[int, dict[str, Any]] = {}
    for row in _report(task.tar_path):
        key = image_key(row["url"])
        outcome = found.get(row["key"]) or {"cause": FAILED_BEFORE, "detail": row.get("error_message")}
        if "cause" not in outcome:
            originals = {name: row.get(name) for name in ("original_width", "original_height")}
            rows[key] = {"key": key, **outcome, **originals}
        elif key not in rows:
            rows[key] = {"key": key, **outcome}
    account = pa.Table.from_pylist([rows[key] for key in sorted(rows)], schema=ACCOUNT)
    with replacing(task.images_dir / account_name(name)) as path:
        pq.write_table(account, path, compression="zstd")
    (task.images_dir / name).unlink(missing_ok=True)
    try:
        os.link(task.tar_path, task.images_dir / name)
    except OSError:  # on another file system
        (task.images_dir / name).symlink_to(task.tar_path)
    causes = Counter(account["cause"].drop_null().to_pylist())
    return task.number, mark_part(task.images_dir, name, len(account) - causes.total(), causes)


def _outcome(task: AdoptTask, offset: int, content: bytes) -> dict[str, Any]:
    """Return the place of an image and what it is, or why it is left out (columns of `ACCOUNT`)."""
    try:
        seen = look_at(content, task.max_pixels)
        with opened(content, task.max_pixels) as image:
            if not is_upright(image, content):
                return {"cause": NEEDS_COPY, "detail": "turned by its EXIF, or not of 8 bits"}
    except FetchError as error:
        return {"cause": error.cause, "detail": error.detail}
    return {"shard": task.number, "offset": offset, **seen}


def _parts(tars: list[Path], images_dir: Path, config: DownloadConfig) -> list[Part]:
    found = {number: finished_part(images_dir, shard_name(number)) for number in range(len(tars))}
    parts = {number: part for number, part in found.items() if part}
    tasks = (
        AdoptTask(number, tars[number], images_dir, config.max_pixels) for number, part in found.items() if not part
    )
    target = f"{adopt_shard.__module__}.{adopt_shard.__name__}"
    log_dir = images_dir / SCRATCH / "log"
    with (
        Workers(target, config.processes, config.shard_deadline_s, log_dir) as workers,
        Progress("adopt", len(tars), begun_at=len(parts)) as progress,
    ):
        for number, part in workers.run(tasks):
            parts[number] = part
            read = part.rows + sum(part.counts.values())
            progress.part(tars[number].name, done=1, read=read, kept=part.rows, drops=part.counts)
    return [parts[number] for number in sorted(parts)]


def _of_list(adopted: Accounts, images: ImageList, scratch_dir: Path) -> list[Accounts]:
    """Return accounts of each listed image once, and of no other."""
    is_failed = adopted.table["cause"].is_valid().to_numpy()[adopted.order]
    order = np.lexsort((is_failed, adopted.keys))  # of images in several shards, one that is stored
    keys, first = np.unique(adopted.keys[order], return_index=True)
    is_listed = np.isin(keys, images.keys)
    if unused := int((~is_listed).sum()):
        logger.info("adopt: %s images of the shards are not among the captions' images", f"{unused:,}")
    found = Accounts(adopted.table, keys[is_listed], adopted.order[order[first[is_listed]]])
    absent = np.setdiff1d(images.keys, keys)
    path = scratch_dir / "absent.parquet"
    columns = {"key": absent, "cause": pa.array([NOT_IN_SHARDS] * len(absent), pa.string())}
    nulls = {field.name: pa.nulls(len(absent), field.type) for field in ACCOUNT if field.name not in columns}
    pq.write_table(pa.table({**columns, **nulls}).select(ACCOUNT.names).cast(ACCOUNT), path)
    return [found, map_accounts([path], scratch_dir / "absent.arrow")]


def _report(tar_path: Path) -> Iterator[dict[str, Any]]:
    """Yield what img2dataset says of each sample: from its Parquet, else from the JSON inside the tar."""
    path = tar_path.with_suffix(".parquet")
    if path.exists():
        known = pq.read_schema(path).names
        yield from pq.read_table(path, columns=[name for name in _REPORT if name in known]).to_pylist()
        return
    with tarfile.open(tar_path) as tar:
        for member in tar:
            name, _, kind = member.name.rpartition(".")
            if kind == "json" and (file := tar.extractfile(member)):
                yield {**json.load(io.BytesIO(file.read())), "key": name}
