"""Evaluation: the default path against the published protocol, image by image with two passes; memory.

Both resize and cut alike: shorter side 448, windows of 448 every 224. Weights are random: they do not change the time.
Images are PASCAL VOC's (`../shared/real/VOC2012`) where that folder is, else drawn of the same size. OVSEG_BENCH_IMAGES
says how many (all 90 take some minutes).
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation import ConfusionMatrix, Protocol, Segmenter
from evaluation.benchmarks import VOC_CLASSES, get_benchmark
from evaluation.segment import PIXELS_PER_PASS
from model import OVSegmentor, PaperSegmentor
from tests.benchmarks.memory import peak_gb
from tests.benchmarks.model import THREADS, build

VOC = Path(__file__).parents[3] / "shared" / "real" / "VOC2012"
IMAGES = int(os.environ.get("OVSEG_BENCH_IMAGES", "24"))
WINDOWS = Protocol(shorter_side=448, longest_side=2048, window=448, stride=224)
Sample = tuple[NDArray[np.uint8], NDArray[np.uint8]]


def samples() -> list[Sample]:
    """Return images and truths."""
    if VOC.exists():
        images = get_benchmark("voc").open(VOC)
        return [images.read(position) for position in range(min(IMAGES, len(images)))]
    generator = np.random.default_rng(0)
    return [
        (generator.integers(0, 256, (375, 500, 3), np.uint8), generator.integers(0, 21, (375, 500), np.uint8))
        for _ in range(IMAGES)
    ]


def as_tensor(image_HWC: NDArray[np.uint8]) -> torch.Tensor:
    return torch.from_numpy(image_HWC).permute(2, 0, 1)


def default_run(segmenter: Segmenter, batch: list[Sample]) -> tuple[float, float]:
    """Label and count some images as `evaluate` does, their windows together; return seconds in all and of counting."""
    matrix, begun, counting_s = ConfusionMatrix(segmenter.num_classes), time.perf_counter(), 0.0
    for regions, (_, truth_HW) in zip(segmenter.regions([as_tensor(image) for image, _ in batch]), batch, strict=True):
        label_HW = segmenter.label(regions).numpy()
        counted = time.perf_counter()
        matrix.update(truth_HW, label_HW)
        counting_s += time.perf_counter() - counted
    return time.perf_counter() - begun, counting_s


def paper_run(segmenter: Segmenter, batch: list[Sample]) -> tuple[float, float]:
    """Label and count the same images as the release does: one by one, each window through the encoder twice."""
    matrix, begun = ConfusionMatrix(segmenter.num_classes), time.perf_counter()
    encode = segmenter.model.encode_image

    def twice(image_BCHW: torch.Tensor) -> object:
        encode(image_BCHW)
        return encode(image_BCHW)

    with patch.object(segmenter.model, "encode_image", twice):
        for image_HWC, truth_HW in batch:
            matrix.update(truth_HW, segmenter.segment(as_tensor(image_HWC)[None])[0].numpy())
    return time.perf_counter() - begun, 0.0


def segmenters() -> tuple[Segmenter, Segmenter]:
    vectors = torch.randn(len(VOC_CLASSES) - 1, 256, generator=torch.Generator().manual_seed(0))
    ours, paper = (build("ViT-S", kind, 1)[0] for kind in (OVSegmentor, PaperSegmentor))
    return (
        Segmenter(ours, vectors, WINDOWS, has_background=True),
        Segmenter(paper, vectors, Protocol.paper(), has_background=True),
    )


@torch.inference_mode()
def speed(folder: Path) -> Iterator[list[str]]:
    """Images per second of both, in turn batch by batch, so that a ratio holds on a noisy machine."""
    del folder
    ours, paper = segmenters()
    found = samples()
    size = max(1, PIXELS_PER_PASS // (2 * 448 * 448))  # images of two windows that fill a pass, as evaluate has them
    batches = [found[start : start + size] for start in range(0, len(found), size)]
    by_patch = Segmenter(ours.model, ours.class_CE, replace(WINDOWS, patch_share=0.5), has_background=True)
    default_run(ours, batches[0]), default_run(by_patch, batches[0]), paper_run(paper, batches[0])
    ours_s, counting_s, by_patch_s, paper_s = 0.0, 0.0, 0.0, 0.0
    for batch in batches:
        taken_s, counted_s = default_run(ours, batch)
        ours_s, counting_s = ours_s + taken_s, counting_s + counted_s
        by_patch_s += default_run(by_patch, batch)[0]
        paper_s += paper_run(paper, batch)[0]
    count = len(found)
    yield [
        f"ViT-S, {count} images of VOC, 448 px, windows of 448 every 224, {THREADS} threads",
        f"{count / ours_s:.2f} images/s", f"release, one by one, two passes: {count / paper_s:.2f} images/s",
        f"{paper_s / ours_s:.2f}",
    ]  # fmt: skip
    yield ["of it counting the confusion matrix", f"{counting_s / ours_s:.2%}", "", ""]
    yield ["the same by groups and patches", f"{count / by_patch_s:.2f} images/s", "", f"{paper_s / by_patch_s:.2f}"]


def memory(folder: Path) -> Iterator[list[str]]:
    """Peak memory of a process of its own that labels 8 images."""
    del folder
    context = multiprocessing.get_context("spawn")
    for name in ("default", "paper"):
        with context.Pool(1) as pool:
            before, after = pool.apply(_peaks, (name,))
        yield [f"ViT-S, peak memory of the process, {name}", f"{after:.2f} GB", f"model alone: {before:.2f} GB", ""]


@torch.inference_mode()
def _peaks(name: str) -> tuple[float, float]:
    ours, paper = segmenters()
    found = samples()[:8]
    ours.model.encode_image(torch.randn(1, 3, 224, 224))
    before = peak_gb()
    if name == "default":
        default_run(ours, found)
    else:
        paper_run(paper, found)
    return before, peak_gb()
