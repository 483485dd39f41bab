"""Download: from captions with addresses to verified webdataset shards and samples.arrow.

Images are cut into shards in order of key. Each shard is the task of a worker process (curation/shard.py) that leaves
the tar, img2dataset's report and an account of every image; the accounts make failures.parquet and samples.arrow.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash

from curation.datacard import write_datacard
from curation.image_list import ImageList
from curation.images import shard_name, write_samples
from curation.manifest import Manifest, Part, close_stage, finished_part, open_stage, read_manifest, replacing
from curation.progress import Progress
from curation.schema import SAMPLES
from curation.shard import SCRATCH, ShardTask, account_name, download_shard
from curation.verify import FAILURE_COLUMNS
from curation.workers import Workers

logger = logging.getLogger(__name__)

FAILURES_FILE = "failures.parquet"
FAILURES = pa.schema([SAMPLES.field("key"), *FAILURE_COLUMNS])
"""images/failures.parquet: one row per image that could not be stored, sorted by key."""

_NOT_IN_CONTENT = ("processes", "threads", "shard_deadline_s", "everything")
"""Settings of pace, and the one that the inputs tell."""


@dataclass(frozen=True)
class DownloadConfig:
    """How images are fetched, resized and stored."""

    everything: bool = False
    """fetch the images of all captions, as the paper did, and not only of those that name an entity"""
    image_size: int = 256
    """longer images are shrunk so that their shorter side has this many pixels; smaller ones keep their size"""
    jpeg_quality: int = 95
    """quality of the stored JPEG, 1 to 100"""
    shard_size: int = 5000
    """images per webdataset shard, failures included"""
    timeout_s: float = 15.0
    """seconds for one try of one image, from the look-up of its host to its last byte"""
    retries: int = 2
    """further tries after a transient failure: time-out, broken connection, 408, 429, 5xx"""
    max_bytes: int = 30_000_000
    """bytes of an image's file at most"""
    max_pixels: int = 100_000_000
    """pixels of an image at most, read from its header before it is decoded"""
    max_redirects: int = 5
    """redirects that are followed for one image"""
    user_agent: str = "ovsegmentor/0.1 (collects images for research; honours X-Robots-Tag)"
    """what we call ourselves; X-Robots-Tag directives for the name before the slash are honoured"""
    allow_private: bool = False
    """whether private, loopback and link-local addresses may be fetched"""
    processes: int = 2
    """shards in work at a time, one process each"""
    threads: int = 32
    """images in flight per process"""
    shard_deadline_s: float = 3600.0
    """seconds after which the process of a shard is ended and the shard tried once more"""

    def __post_init__(self) -> None:
        for name in ("image_size", "shard_size", "max_bytes", "max_pixels", "processes", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        for name in ("retries", "max_redirects"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 or more")
        for name in ("timeout_s", "shard_deadline_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected seconds, more than 0")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality = {self.jpeg_quality}: expected 1 to 100")
        if not self.user_agent.strip():
            raise ValueError("user_agent is empty: say who fetches, servers refuse or block the nameless")


def download(data_dir: Path, config: DownloadConfig, image_root: Path | str | None = None) -> Manifest:
    """Fetch the images of entities/ (or captions/) into images/ and return the manifest; finished shards stay.

    `image_root` is the folder, or the http(s) address, that the images named by path lie under; an image's key is the
    hash of its path either way.

    Raises: ValueError when the folder was begun with another list or config, or paths are given without `image_root`.
    """
    data_dir, images_dir = Path(data_dir).resolve(), Path(data_dir).resolve() / "images"
    entities = read_manifest(data_dir / "entities")
    content = {name: value for name, value in asdict(config).items() if name not in _NOT_IN_CONTENT}
    captions = read_manifest(data_dir / "captions") if config.everything else None
    inputs = {"entities": entities.digest} | ({"captions": captions.digest} if captions else {})
    if done := open_stage(images_dir, "download", content, inputs):
        return done
    scratch_dir = images_dir / SCRATCH
    shutil.rmtree(scratch_dir, ignore_errors=True)
    images = ImageList(data_dir, captions or entities, config.shard_size, scratch_dir / "sorted")
    if images.has_paths and image_root is None:
        raise ValueError(
            f"{data_dir / 'entities'}: images are named by path; name their folder or address with --image-root"
        )
    if not images.num_images:
        raise ValueError(f"{data_dir / 'entities'}: names no image to fetch; no caption of the table names an entity")
    if image_root is not None:
        is_web = str(image_root).startswith(("http://", "https://"))
        image_root = str(image_root).rstrip("/") if is_web else str(Path(image_root).resolve())
    parts = _fetch_shards(images, images_dir, config, image_root)
    manifest = _close(images, images_dir, entities.digest, parts)
    shutil.rmtree(scratch_dir, ignore_errors=True)
    return manifest


def _fetch_shards(images: ImageList, images_dir: Path, config: DownloadConfig, image_root: str | None) -> list[Part]:
    found = {number: finished_part(images_dir, shard_name(number)) for number in range(images.num_shards)}
    parts = {number: part for number, part in found.items() if part}
    waiting = [number for number, part in found.items() if not part]
    if parts and waiting:
        logger.info("download: %d of %d shards are there already", len(parts), images.num_shards)
    scratch_dir = images_dir / SCRATCH

    def tasks() -> Iterator[ShardTask]:
        for number in waiting:
            path = scratch_dir / f"{number:05d}.arrow"
            table = images.shard(number)
            with pa.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table)
            yield ShardTask(number, path, images_dir, image_root, config)

    processes = min(config.processes, max(1, len(waiting)))
    target = f"{download_shard.__module__}.{download_shard.__name__}"
    with (
        Workers(target, processes, config.shard_deadline_s, scratch_dir / "log") as workers,
        Progress("download", len(waiting)) as progress,
    ):
        for number, part in workers.run(tasks()):
            parts[number] = part
            read = part.rows + sum(part.counts.values())
            progress.part(f"shard {number:05d}", done=1, read=read, kept=part.rows, drops=part.counts)
    return [parts[number] for number in sorted(parts)]


def _close(images: ImageList, images_dir: Path, entities_digest: str, parts: list[Part]) -> Manifest:
    """Write failures.parquet, samples.arrow, the data card and the manifest from the shards' tables."""
    stored, causes = sum(part.rows for part in parts), Counter[str]()
    for part in parts:
        causes.update(part.counts)
    if stored + causes.total() != images.num_images:
        raise RuntimeError(
            f"{images_dir}: {images.num_images} images, {stored} stored, {causes.total()} failed: a defect"
        )
    if not stored:
        raise RuntimeError(
            f"{images_dir}: none of {images.num_images} images could be stored ({dict(causes.most_common(3))}); "
            f"look at the network and the addresses, remove the folder and run the download again"
        )
    # Keys tell which captions there are, together with the digest of entities/.
    digest = xxhash.xxh3_128(entities_digest.encode())
    with replacing(images_dir / FAILURES_FILE) as path, pq.ParquetWriter(path, FAILURES, compression="zstd") as writer:
        for shard in _shard_tables(images_dir, parts, FAILURES.names):
            digest.update(shard.filter(pc.field("cause").is_null())["key"].to_numpy().tobytes())
            writer.write_table(shard.filter(pc.field("cause").is_valid()).select(FAILURES.names))
    stored_rows = (
        shard.filter(pc.field("cause").is_null()).select(SAMPLES.names)
        for shard in _shard_tables(images_dir, parts, [*SAMPLES.names, "cause"])
    )
    write_samples(images_dir, stored_rows, digest.hexdigest())
    size = sum((images_dir / part.name).stat().st_size for part in parts)
    figures: dict[str, int | float | str] = {
        "images": images.num_images,
        "stored": stored,
        "success rate": stored / images.num_images,
        "shards": len(parts),
        "bytes of shards": size,
    }
    write_datacard(images_dir, "Images", figures, dict(causes))
    return close_stage(images_dir, parts)


def _shard_tables(images_dir: Path, parts: list[Part], columns: list[str]) -> Iterator[pa.Table]:
    return (pq.read_table(images_dir / account_name(part.name), columns=columns) for part in parts)
