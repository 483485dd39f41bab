"""Download: from captions with addresses to verified webdataset shards and samples.arrow.

Images are cut into shards in order of key. Each shard is the task of a worker process (curation/shard.py) that leaves
the tar, img2dataset's report and an account of every image. What failed for a transient cause gets further rounds
(curation/rounds.py); the accounts of all shards make samples.arrow and failures.parquet (curation/finish.py).
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

from curation.benchmark_images import benchmarks_digest
from curation.finish import finish
from curation.image_list import ImageList
from curation.in_place import link_files
from curation.manifest import Manifest, open_stage, read_manifest
from curation.near_duplicates import MAX_BITS
from curation.rounds import RunShards, fetch_rounds
from curation.shard import SCRATCH

_PACE = ("processes", "threads", "per_host", "shard_deadline_s", "min_success_rate", "gate_images", "max_pause_s")
_NOT_IN_CONTENT = (*_PACE, "round_pause_s", "everything")
"""Settings of pace, and the one that the inputs tell."""


@dataclass(frozen=True)
class DownloadConfig:
    """How images are fetched, resized and stored."""

    everything: bool = False
    """fetch the images of all captions, as the paper did, and not only of those that name an entity"""
    in_place: bool = False
    """leave images that are named by path in their folder, except those that have to be turned, converted or shrunk"""
    image_size: int = 256
    """longer images are shrunk so that their shorter side has this many pixels; smaller ones keep their size"""
    jpeg_quality: int = 95
    """quality of the stored JPEG, 1 to 100"""
    shard_size: int = 5000
    """images per webdataset shard, failures included"""
    timeout_s: float = 15.0
    """seconds for one try of one image, from the look-up of its host to its last byte"""
    retries: int = 1
    """further tries at once after a broken connection, 408, 429 or 5xx"""
    rounds: int = 2
    """further rounds, after all shards, over the images that failed for a transient cause (time-outs and names, too)"""
    round_pause_s: float = 5.0
    """seconds before such a round, more when a host's Retry-After asks for more"""
    max_pause_s: float = 600.0
    """longest such pause in seconds, whatever hosts ask for"""
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
    per_host: int = 8
    """images in flight per host and process"""
    host_failures: int = 32
    """requests to a host without any answer, in a row, after which its other images of the shard wait for a round"""
    shard_deadline_s: float = 3600.0
    """seconds after which a shard leaves its remaining images to the next round"""
    min_success_rate: float = 0.2
    """share of the names looked up first, and of the latest images tried, below which the run stops; 0: never"""
    gate_images: int = 1000
    """images that this share is taken of"""
    duplicate_bits: int = 4
    """bits of the 64-bit perceptual hash in which near-duplicates may differ"""
    benchmarks: tuple[str, ...] = ()
    """folders of benchmark images, or files of perceptual hashes: images that nearly equal them are left out"""

    def __post_init__(self) -> None:
        counts = ("image_size", "shard_size", "max_bytes", "max_pixels", "processes", "threads", "per_host")
        for name in (*counts, "host_failures", "gate_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least 1")
        for name in ("retries", "max_redirects", "rounds", "round_pause_s", "max_pause_s"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected 0 or more")
        for name in ("timeout_s", "shard_deadline_s"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)}: expected seconds, more than 0")
        if not 0 <= self.min_success_rate <= 1:
            raise ValueError(f"min_success_rate = {self.min_success_rate}: expected 0 to 1")
        if not 0 <= self.duplicate_bits <= MAX_BITS:
            raise ValueError(f"duplicate_bits = {self.duplicate_bits}: expected 0 to {MAX_BITS}")
        if not 1 <= self.jpeg_quality <= 100:
            raise ValueError(f"jpeg_quality = {self.jpeg_quality}: expected 1 to 100")
        if not self.user_agent.strip():
            raise ValueError("user_agent is empty: say who fetches, servers refuse or block the nameless")


def download(
    data_dir: Path,
    config: DownloadConfig,
    image_root: Path | str | None = None,
    run_shards: RunShards | None = None,
) -> Manifest:
    """Fetch the images of entities/ (or captions/) into images/ and return the manifest; finished shards stay.

    `image_root` is the folder, or the http(s) address, that the images named by path lie under; an image's key is the
    hash of its path either way. `run_shards` sends shards to other machines, which must reach images and data folder.

    Raises: ValueError when the folder was begun with another list or config, or paths are given without `image_root`.
    """
    data_dir, images_dir = Path(data_dir).resolve(), Path(data_dir).resolve() / "images"
    entities = read_manifest(data_dir / "entities")
    content = {name: value for name, value in asdict(config).items() if name not in _NOT_IN_CONTENT}
    captions = read_manifest(data_dir / "captions") if config.everything else None
    inputs = {"entities": entities.digest} | ({"captions": captions.digest} if captions else {})
    if config.benchmarks:
        inputs["benchmarks"] = benchmarks_digest(config.benchmarks)
    if done := open_stage(images_dir, "download", content, inputs):
        return done
    scratch_dir = images_dir / SCRATCH
    shutil.rmtree(scratch_dir, ignore_errors=True)
    images = ImageList(data_dir, captions or entities, config.shard_size, scratch_dir / "sorted")
    if not images.num_images:
        raise ValueError(f"{data_dir / 'entities'}: names no image to fetch; no caption of the table names an entity")
    root = _image_root(image_root, images, config.in_place)
    if config.in_place:
        link_files(images_dir, Path(root or ""))
    parts, rounds = fetch_rounds(images, images_dir, config, root, run_shards)
    manifest = finish(images, images_dir, parts, rounds, config, entities.digest)
    shutil.rmtree(scratch_dir, ignore_errors=True)
    return manifest


def _image_root(image_root: Path | str | None, images: ImageList, in_place: bool) -> str | None:
    """Return the folder, or the http(s) address, of the images that are named by path; None when none is needed.

    Raises: ValueError when it is missing, or not of the kind that is needed.
    """
    is_web = str(image_root).startswith(("http://", "https://"))
    if image_root is None and images.has_paths:
        raise ValueError("images are named by path; name their folder or address with --image-root")
    if in_place and (is_web or not images.has_paths):
        found = f"image_root = {image_root}" if is_web else "images named by URL"
        raise ValueError(f"in_place = True: expected images named by path, below a folder; found {found}")
    if image_root is None or is_web:
        return str(image_root).rstrip("/") if image_root else None
    if not Path(image_root).is_dir():
        raise ValueError(f"image_root = {image_root}: expected a folder, or an address with http:// or https://")
    return str(Path(image_root).resolve())
