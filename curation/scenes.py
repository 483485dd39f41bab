"""Drawn scenes as a data source: a caption table whose addresses are served over HTTP, and a benchmark with masks.

The training scenes have captions and no masks; the masks lie in `benchmark/` and belong to other scenes. Scene i is
a function of (seed, i) alone, so parts may be drawn in any order by any number of workers.
"""

from __future__ import annotations

import io
import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from curation.manifest import Part, close_stage, finished_part, mark_part, open_stage, replacing
from curation.scenes_captions import captions
from curation.scenes_drawing import Level, draw
from curation.scenes_things import ENTITIES

log = logging.getLogger(__name__)

PART_SIZE = 1000
FAULTS = ("missing", "error", "page", "truncated")
"""broken addresses: 404, 500, a web page instead of an image, half a JPEG"""
SLOW, DEAD = "slow", "dead"
DEAD_ADDRESS = "http://127.0.0.1:1"
"""nobody listens on port 1: the connection is refused at once"""


@dataclass(frozen=True)
class ScenesConfig:
    """What is drawn, and how its addresses behave."""

    num_images: int = 8000
    """training scenes: captions and images, no masks"""
    num_held_out: int = 300
    """scenes of the benchmark, with masks; never among the training scenes"""
    num_validation: int = 100
    """further scenes with masks, for measurements while training; in neither of the others"""
    level: Level = "textured"
    """plain: one flat colour a kind; shaded: several hues, shading; textured: any hue, patterns, patterned grounds"""
    image_size: int = 64
    """side of an image in pixels"""
    seed: int = 0
    """seed of everything drawn and written"""
    fault_rate: float = 0.02
    """share of the addresses that are dead or broken, spread over the kinds of fault"""
    slow_rate: float = 0.01
    """share of the addresses that answer late"""
    slow_s: float = 0.3
    """delay of a slow answer in seconds; keep it far below the download's time limit"""
    port: int = 8642
    """port of the server on 127.0.0.1; fixed, since an image's key is the hash of its address"""

    def __post_init__(self) -> None:
        """Refuse settings that cannot work."""
        counts = (("num_images", 1), ("num_held_out", 1), ("num_validation", 1))
        for name, least in (*counts, ("image_size", 32), ("port", 1024)):
            if getattr(self, name) < least:
                raise ValueError(f"ScenesConfig.{name} = {getattr(self, name)}: use {least} or more")
        if self.port > 65535:
            raise ValueError(f"ScenesConfig.port = {self.port}: use a port from 1024 to 65535")
        if min(self.fault_rate, self.slow_rate) < 0 or self.fault_rate + self.slow_rate > 1:
            raise ValueError(
                f"ScenesConfig.fault_rate = {self.fault_rate} and slow_rate = {self.slow_rate}: "
                f"use shares of 0 to 1 whose sum is at most 1"
            )
        if not 0 <= self.slow_s <= 5:
            raise ValueError(f"ScenesConfig.slow_s = {self.slow_s}: use 0 to 5 seconds")

    @property
    def base_url(self) -> str:
        """Address of the server, without a slash at its end."""
        return f"http://127.0.0.1:{self.port}"


class MapParts(Protocol):
    """The built-in `map`, or a stand-in that runs the parts elsewhere; results come in order."""

    def __call__(self, function: Callable[[range], Part], parts: Iterable[range], /) -> Iterable[Part]:
        """Return the parts' results."""


def draw_scenes(out_dir: Path, config: ScenesConfig, map_parts: MapParts = map) -> Path:
    """Return out_dir with captions.tsv, images/ and benchmark/ in it; a finished folder is left as it is.

    Raises: ValueError when out_dir holds scenes of another config.
    """
    if open_stage(out_dir, "scenes", asdict(config), {}) is not None:
        return out_dir
    for folder in ("images", "parts", "benchmark/JPEGImages", "benchmark/SegmentationClass"):
        (out_dir / folder).mkdir(parents=True, exist_ok=True)
    ranges = [range(i, min(i + PART_SIZE, config.num_images)) for i in range(0, config.num_images, PART_SIZE)]
    begun = time.monotonic()
    parts = []
    for part in map_parts(_PartWriter(out_dir, config), ranges):
        parts.append(part)
        done, rate = len(parts) * PART_SIZE, len(parts) * PART_SIZE / (time.monotonic() - begun)
        left = max(0, config.num_images - done) / rate
        log.info("scenes  %s  %.0f/s  eta %02d:%02d", part.name, rate, *divmod(int(left), 60))
    benchmark = _write_benchmark(out_dir / "benchmark", config)
    with replacing(out_dir / "captions.tsv") as path, path.open("w", encoding="utf-8") as table:
        table.write("url\tcaption\n")
        for part in parts:
            table.write((out_dir / "parts" / part.name).read_text(encoding="utf-8"))
    table_part = mark_part(out_dir, "captions.tsv", sum(part.rows for part in parts))
    counts = Counter(benchmark)
    for part in parts:
        counts.update(part.counts)
    close_stage(out_dir, [table_part], counts)
    return out_dir


@dataclass(frozen=True)
class _PartWriter:
    """Draws a range of training scenes; picklable, so that `map_parts` may send it to other processes."""

    out_dir: Path
    config: ScenesConfig

    def __call__(self, indices: range) -> Part:
        name = f"part-{indices.start // PART_SIZE:05d}.tsv"
        folder = self.out_dir / "parts"
        part = finished_part(folder, name)
        if part is not None:
            return part
        counts: Counter[str] = Counter(images=len(indices))
        rows = []
        for index in indices:
            rng = np.random.default_rng([self.config.seed, 0, index])
            scene = draw(rng, self.config.level, self.config.image_size)
            (self.out_dir / "images" / f"{index:06d}.jpg").write_bytes(_jpeg(scene.pixels))
            kind = self._kind(rng)
            counts[f"addresses {kind}"] += 1
            counts.update(f"drawn {thing.entity or 'clutter'}" for thing in scene.things)
            rows += [f"{self._address(kind, index)}\t{caption}\n" for caption in captions(rng, scene)]
        with replacing(folder / name) as path:
            path.write_text("".join(rows), encoding="utf-8")
        return mark_part(folder, name, len(rows), counts)

    def _kind(self, rng: np.random.Generator) -> str:
        draw_kind, which = rng.random(), int(rng.integers(len(FAULTS) + 1))
        if draw_kind < self.config.fault_rate:
            return (*FAULTS, DEAD)[which]
        return SLOW if draw_kind < self.config.fault_rate + self.config.slow_rate else "images"

    def _address(self, kind: str, index: int) -> str:
        return f"{DEAD_ADDRESS if kind == DEAD else self.config.base_url}/{kind}/{index:06d}.jpg"


def _write_benchmark(folder: Path, config: ScenesConfig) -> Counter[str]:
    """Write the held-out and the validation scenes in the layout of PASCAL VOC; return the held-out pixels by class."""
    pixels: Counter[str] = Counter()
    classes = ("background", *ENTITIES)
    palette = np.random.default_rng(0).integers(40, 256, (256, 3), np.uint8)
    palette[0] = 0
    names: dict[str, list[str]] = {"val": [], "train": []}
    counts = (("val", 1, config.num_held_out), ("train", 2, config.num_validation))
    for split, stream, index in ((split, stream, index) for split, stream, num in counts for index in range(num)):
        scene = draw(np.random.default_rng([config.seed, stream, index]), config.level, config.image_size)
        name = f"{index:06d}" if split == "val" else f"{split}-{index:06d}"
        (folder / "JPEGImages" / f"{name}.jpg").write_bytes(_jpeg(scene.pixels))
        mask = Image.fromarray(scene.labels)
        mask.putpalette(palette.tobytes())
        mask.save(folder / "SegmentationClass" / f"{name}.png")
        names[split].append(name)
        if split == "val":
            for label, count in enumerate(np.bincount(scene.labels.ravel(), minlength=len(classes))):
                pixels[f"held-out pixels {classes[label]}"] += int(count)
    sets = folder / "ImageSets" / "Segmentation"
    sets.mkdir(parents=True, exist_ok=True)
    for split in names:
        (sets / f"{split}.txt").write_text("".join(f"{name}\n" for name in names[split]))
    (folder / "classes.txt").write_text("".join(f"{name}\n" for name in classes))
    return pixels


def _jpeg(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()
