"""Curation: parse, download, reading images by key."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from curation.captions import ingest
from curation.download import DownloadConfig
from curation.download import download as fetch_images
from curation.images import Samples
from curation.parse import parse as parse_stage
from curation.scenes import ScenesConfig, draw_scenes
from curation.scenes_server import serve_scenes
from tests.benchmarks.parsing import parse_long
from tests.benchmarks.timing import median_s, row

CONFIG = ScenesConfig(num_images=2000, num_held_out=1, port=8653)


def parse(folder: Path) -> Iterator[list[str]]:
    """Rate, growth and memory of parse on captions of CC12M's length; the ratio to spaCy's whole pipeline."""
    yield from parse_long(folder)


def download(folder: Path) -> Iterator[list[str]]:
    """Images per second from a server on loopback to verified shards, start-up included."""
    num_images, seconds = make_images(folder)
    yield row("download 64-px images, start-up and verification included", num_images, seconds, "images")


def read(folder: Path) -> Iterator[list[str]]:
    """Random reads by key per second from samples.arrow, against a folder of files."""
    make_images(folder)
    samples = Samples(folder / "images")
    order = np.random.default_rng(0).permutation(len(samples)).tolist()
    files = folder / "files"
    files.mkdir()
    for r in order:
        (files / f"{samples.keys[r]}.jpg").write_bytes(samples.read(r))
    keys = samples.keys.tolist()
    ours_s, files_s = median_s(
        lambda: [samples.read(samples.position(keys[r])) for r in order],
        lambda: [(files / f"{keys[r]}.jpg").read_bytes() for r in order],
    )
    yield row("random reads by key, warm", len(order), ours_s, "images", "folder of files", files_s)


def make_images(folder: Path) -> tuple[int, float]:
    draw_scenes(folder / "scenes", CONFIG)
    ingest(folder / "scenes" / "captions.tsv", folder)
    parse_stage(folder)
    with serve_scenes(folder / "scenes", CONFIG):
        begun = time.perf_counter()
        stored = fetch_images(folder, DownloadConfig(allow_private=True, image_size=64, shard_size=500)).rows
    return stored, time.perf_counter() - begun
