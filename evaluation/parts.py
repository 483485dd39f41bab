"""One part of a benchmark: what a run of consecutive images adds to the figures, as a file of its own.

A job holds paths and settings only (or models in memory, for a run in one process), so that it can go to any worker.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evaluation import backgrounds
from evaluation.atomic import write_json
from evaluation.baselines import baseline_labels, colour_clusters
from evaluation.benchmarks import LabelledImages, get_benchmark
from evaluation.config import Protocol
from evaluation.metrics import IGNORE, BestOverlap, ConfusionMatrix, number
from evaluation.segment import PIXELS_PER_PASS, Segmenter, group_map
from model import OVSegmentor

CLUSTERS = "colour_clusters"


@dataclass(frozen=True)
class Setup:
    """What all parts of an evaluation have in common."""

    models: tuple[tuple[str, Path | OVSegmentor], ...]
    """name and folder (or model) of each; baselines and background rules belong to the last"""
    benchmark: str
    """name of the benchmark"""
    root: Path
    """folder of the benchmark"""
    protocol: Protocol
    """how models are asked"""
    device: str | None
    """torch's name of a device; None takes a GPU where there is one"""
    with_baselines: bool
    """measure the baselines too"""
    with_backgrounds: bool
    """compare rules for background too"""
    digest: str = ""
    """of files and weights: a worker that keeps what it opened never takes old ones for new"""


@dataclass(frozen=True)
class PartJob:
    """Images `start` to `stop` of a benchmark."""

    setup: Setup
    """what all parts have in common"""
    start: int
    """position of the first image"""
    stop: int
    """position behind the last image"""
    out: Path
    """file to write"""


@lru_cache(maxsize=1)
def open_setup(setup: Setup) -> tuple[LabelledImages, dict[str, Segmenter]]:
    """Return the images and a segmenter per model; the last answer is kept, since a worker does many parts."""
    images = get_benchmark(setup.benchmark).open(setup.root)
    protocol = setup.protocol
    if setup.with_backgrounds:
        protocol = backgrounds.with_words(protocol, images.classes)
    device = setup.device or ("cuda" if torch.cuda.is_available() else "cpu")
    models = {
        name: (OVSegmentor.from_pretrained(model) if isinstance(model, Path) else model).to(device)
        for name, model in setup.models
    }
    return images, {name: Segmenter(model, images.classes, protocol) for name, model in models.items()}


def run_part(job: PartJob) -> Path:
    """Write what a part adds to the figures; return the file. Finished work is not repeated."""
    if not job.out.exists():
        write_json(job.out, _Part(job).run())
    return job.out


class _Part:
    def __init__(self, job: PartJob) -> None:
        self.job = job
        self.images, self.segmenters = open_setup(job.setup)
        self.subject = list(self.segmenters)[-1]
        num_classes = len(self.images.classes)
        self.confusion: dict[str, ConfusionMatrix] = {}
        self.overlap = {name: BestOverlap(num_classes) for name in (*self.segmenters, CLUSTERS)}
        self.area_S23C: NDArray[np.int64] | None = None
        self.rows: dict[int, dict[str, Any]] = {}

    def run(self) -> dict[str, Any]:
        for positions in self._batches():
            read = [self.images.read(position) for position in positions]
            self._add(positions, [_tensor(image_HWC) for image_HWC, _ in read], [truth_HW for _, truth_HW in read])
        return {
            "images": [self.rows[position] for position in sorted(self.rows)],
            "confusion": {method: matrix.count_CC.tolist() for method, matrix in self.confusion.items()},
            "overlap": {
                method: {"sum": overlap.sum_C.tolist(), "regions": overlap.regions_C.tolist()}
                for method, overlap in self.overlap.items()
            },
            "areas": None if self.area_S23C is None else self.area_S23C.tolist(),
        }

    def _batches(self) -> Iterator[list[int]]:
        """Yield positions of images whose windows have one size and fill a pass of the encoder together."""
        segmenter = self.segmenters[self.subject]
        same: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for position in range(self.job.start, self.job.stop):
            windows = segmenter.windows(*self.images.size(position))
            height, width = (side.stop - side.start for side in windows[0])
            same.setdefault((height, width), []).append((position, len(windows)))
        for (height, width), places in same.items():
            batch: list[int] = []
            free = PIXELS_PER_PASS
            for position, num_windows in places:
                pixels = height * width * num_windows
                if batch and pixels > free:
                    yield batch
                    batch, free = [], PIXELS_PER_PASS
                batch.append(position)
                free -= pixels
            yield batch

    def _add(self, positions: list[int], images: list[Tensor], truths: list[NDArray[np.uint8]]) -> None:
        labels: list[dict[str, NDArray[np.int64]]] = [{} for _ in images]
        setup = self.job.setup
        for name, segmenter in self.segmenters.items():
            is_subject = name == self.subject
            seen = segmenter.regions(images, with_patches=is_subject and setup.with_baselines)
            for at, (regions, image_CHW, truth_HW) in enumerate(zip(seen, images, truths, strict=True)):
                labels[at][name] = segmenter.label(regions).cpu().numpy()
                self.overlap[name].update(truth_HW, group_map(regions).cpu().numpy())
                if is_subject and setup.with_baselines:
                    cluster_HW = colour_clusters(image_CHW[None])[0]
                    labels[at] |= baseline_labels(segmenter, regions, cluster_HW, truth_HW)
                    self.overlap[CLUSTERS].update(truth_HW, cluster_HW.numpy())
                if is_subject and setup.with_backgrounds:
                    area_S23C = backgrounds.count_areas(segmenter, regions, truth_HW, self.images.names[positions[at]])
                    self.area_S23C = area_S23C if self.area_S23C is None else self.area_S23C + area_S23C
        for position, truth_HW, found in zip(positions, truths, labels, strict=True):
            self.rows[position] = self._count(self.images.names[position], truth_HW, found)

    def _count(self, name: str, truth_HW: NDArray[np.uint8], found: dict[str, NDArray[np.int64]]) -> dict[str, Any]:
        num_classes = len(self.images.classes)
        miou = {}
        for method, label_HW in found.items():
            matrix = ConfusionMatrix(num_classes)
            matrix.update(truth_HW, label_HW)
            self.confusion.setdefault(method, ConfusionMatrix(num_classes)).count_CC += matrix.count_CC
            miou[method] = number(matrix.miou())
        present = [int(label) for label in np.unique(truth_HW) if label != IGNORE]
        return {"name": name, "classes": present, "miou": miou}


def _tensor(image_HWC: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(image_HWC).permute(2, 0, 1)
