"""A benchmark run: figures of models and baselines, per class and per image, with pictures, as JSON.

The folder is its own record: `started.json` names the inputs, `parts/` holds the counts of finished images,
`evaluation.json` comes last. A killed evaluation goes on with the first part that is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from evaluation import backgrounds
from evaluation.atomic import write_json
from evaluation.baselines import BASELINES
from evaluation.benchmarks import LabelledImages, get_benchmark
from evaluation.config import Protocol
from evaluation.examples import draw, ranked
from evaluation.metrics import BestOverlap, ConfusionMatrix, mean, number, seen_and_unseen
from evaluation.parts import PartJob, Setup, open_setup, run_part
from evaluation.segment import BACKGROUND
from model import OVSegmentor

logger = logging.getLogger(__name__)

IMAGES_PER_PART = 60
RESULT, STARTED, PARTS = "evaluation.json", "started.json", "parts"
MapParts = Callable[[Callable[[PartJob], Path], Iterable[PartJob]], Iterable[Path]]


def evaluate(
    models: Mapping[str, Path | OVSegmentor],
    benchmark: str,
    root: Path,
    out_dir: Path,
    protocol: Protocol | None = None,
    *,
    device: str | None = None,
    unseen: Sequence[str] | None = None,
    with_baselines: bool = True,
    with_backgrounds: bool = False,
    map_parts: MapParts = map,
) -> dict[str, Any]:
    """Return the figures of models and baselines on a benchmark folder, and write them to out_dir/evaluation.json.

    Baselines and the comparison of background rules belong to the last model. Masks are read for scoring, for rows
    marked as oracles, and for fitted thresholds; models see images and words only. `unseen` names the classes that
    figures of unseen classes are about (default: the benchmark's usual ones). `map_parts` applies `run_part` to the
    parts and yields results in their order: `map`, or one that takes them to other processes and machines, where
    models must be folders. A finished evaluation of the same inputs is read, not repeated.
    Raises: ValueError when out_dir holds an evaluation of other inputs.
    """
    if not models:
        raise ValueError("models = {}: nothing to evaluate; give at least one model by name")
    if taken := sorted(set(models) & set(BASELINES)):
        raise ValueError(f"models may not be called {', '.join(taken)}: baselines have these names")
    # Other machines work in other folders.
    folders = tuple((name, model.resolve() if isinstance(model, Path) else model) for name, model in models.items())
    root, out_dir = root.resolve(), out_dir.resolve()
    setup = Setup(folders, benchmark, root, protocol or Protocol(), device, with_baselines, with_backgrounds)
    images = get_benchmark(benchmark).open(root)
    unseen = get_benchmark(benchmark).unseen if unseen is None else tuple(unseen)
    seen_and_unseen(np.zeros(len(images.classes)), images.classes, unseen)
    if with_backgrounds and images.classes[0] != BACKGROUND:
        raise ValueError(f"benchmark {benchmark!r} has no class {BACKGROUND!r}: there are no rules for it to compare")
    inputs = json.loads(json.dumps(_inputs(setup, images, unseen)))
    _begin(out_dir, inputs)
    setup = replace(setup, digest=hashlib.sha256(json.dumps(inputs).encode()).hexdigest())
    if (out_dir / RESULT).exists():
        logger.info("%s: finished before", out_dir / RESULT)
        finished: dict[str, Any] = json.loads((out_dir / RESULT).read_text())
        return finished
    parts = _run_parts(setup, len(images), out_dir, map_parts)
    subject = list(models)[-1]
    result: dict[str, Any] = {
        "benchmark": {"name": benchmark, "title": get_benchmark(benchmark).title, "images": len(images)},
        "classes": images.classes,
        "unseen": unseen,
        "protocol": asdict(setup.protocol),
        "subject": subject,
        "results": [_row(method, parts, models, images.classes, unseen) for method in parts[0]["confusion"]],
        **_backgrounds(setup, parts, images.classes),
        "images": [image for part in parts for image in part["images"]],
    }
    is_plain = {0} if images.classes[0] == BACKGROUND else set()
    with_objects = [image for image in result["images"] if set(image["classes"]) - is_plain]
    segmenters = open_setup(setup)[1]
    result["pictures"] = [
        {"rank": rank, "miou": miou, **draw(segmenters, images, name, out_dir)}
        for rank, name, miou in ranked([(image["name"], image["miou"][subject]) for image in with_objects])
    ]
    open_setup.cache_clear()
    result = json.loads(json.dumps(result))
    write_json(out_dir / RESULT, result)
    return result


def _inputs(setup: Setup, images: LabelledImages, unseen: tuple[str, ...]) -> dict[str, Any]:
    return {
        "benchmark": setup.benchmark,
        "files": _digest_files(images.files),
        "classes": images.classes,
        "unseen": unseen,
        "protocol": asdict(setup.protocol),
        "baselines": setup.with_baselines,
        "backgrounds": setup.with_backgrounds,
        "models": {
            name: _digest_files(sorted(path for path in model.iterdir() if path.is_file() and path.suffix != ".md"))
            if isinstance(model, Path)
            else _digest_weights(model)
            for name, model in setup.models
        },
    }


def _begin(out_dir: Path, inputs: dict[str, Any]) -> None:
    started = out_dir / STARTED
    if not started.exists():
        write_json(started, inputs)
        return
    found = json.loads(started.read_text())
    if changed := [name for name in inputs if found.get(name) != inputs[name]]:
        raise ValueError(
            f"{out_dir}: holds an evaluation with other {', '.join(changed)}; "
            f"remove the folder to evaluate anew, or choose another --out"
        )


def _run_parts(setup: Setup, num_images: int, out_dir: Path, map_parts: MapParts) -> list[dict[str, Any]]:
    """Return the parts in order; those that lie there already are not made again."""
    jobs = [
        PartJob(setup, start, min(start + IMAGES_PER_PART, num_images), out_dir / PARTS / f"{number:05d}.json")
        for number, start in enumerate(range(0, num_images, IMAGES_PER_PART))
    ]
    waiting = [job for job in jobs if not job.out.exists()]
    began, done = time.monotonic(), 0
    total = sum(job.stop - job.start for job in waiting)
    made = map_parts(run_part, waiting)
    for job, _ in zip(waiting, tqdm(made, "evaluate", len(waiting), unit="part", disable=None), strict=True):
        done += job.stop - job.start
        rate = done / (time.monotonic() - began)
        logger.info("evaluate  images %d/%d  %.1f/s  eta %.0f s", done, total, rate, (total - done) / rate)
    return [json.loads(job.out.read_text()) for job in jobs]


def _row(
    method: str,
    parts: list[dict[str, Any]],
    models: Mapping[str, Path | OVSegmentor],
    classes: tuple[str, ...],
    unseen: tuple[str, ...],
) -> dict[str, Any]:
    matrix, overlap = ConfusionMatrix(len(classes)), BestOverlap(len(classes))
    for part in parts:
        matrix.count_CC += np.array(part["confusion"][method])
        if method in part["overlap"]:
            overlap.sum_C += np.array(part["overlap"][method]["sum"])
            overlap.regions_C += np.array(part["overlap"][method]["regions"])
    baseline = BASELINES.get(method)
    return {
        "name": method,
        "title": method if baseline is None else baseline.title,
        "description": "" if baseline is None else baseline.description,
        "kind": "model" if method in models else "oracle" if baseline and baseline.is_oracle else "baseline",
        "miou": number(matrix.miou()),
        "frequency_weighted_iou": number(matrix.frequency_weighted_iou()),
        "pixel_accuracy": number(matrix.pixel_accuracy()),
        "iou": {name: number(iou) for name, iou in zip(classes, matrix.iou(), strict=True)},
        "confusion": matrix.count_CC.tolist(),
        "unseen": {name: number(value) for name, value in seen_and_unseen(matrix.iou(), classes, unseen).items()}
        if unseen
        else None,
        "groups": _group_quality(overlap, classes) if method in parts[0]["overlap"] else None,
    }


def _group_quality(overlap: BestOverlap, classes: tuple[str, ...]) -> dict[str, Any]:
    """Return the average best overlap over regions and over classes; background is no thing that a group should be."""
    is_named_C = np.array([name != BACKGROUND for name in classes])
    regions = int(overlap.regions_C[is_named_C].sum())
    return {
        "regions": regions,
        "mean_over_regions": float(overlap.sum_C[is_named_C].sum() / regions) if regions else None,
        "mean_over_classes": number(mean(overlap.per_class()[is_named_C])),
        "per_class": {name: number(value) for name, value in zip(classes, overlap.per_class(), strict=True)},
    }


def _backgrounds(setup: Setup, parts: list[dict[str, Any]], classes: tuple[str, ...]) -> dict[str, Any]:
    if not setup.with_backgrounds:
        return {"backgrounds": [], "threshold_curve": []}
    area_S23C = np.sum([np.array(part["areas"]) for part in parts], 0)
    protocol = backgrounds.with_words(setup.protocol, classes)
    return {
        "backgrounds": backgrounds.compare(area_S23C, protocol),
        "threshold_curve": backgrounds.threshold_curve(area_S23C, protocol),
    }


def _digest_files(paths: list[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        content = path.read_bytes()
        digest.update(f"{path.name}\0{len(content)}\0".encode())
        digest.update(content)
    return digest.hexdigest()


def _digest_weights(model: OVSegmentor) -> str:
    digest = hashlib.sha256(repr(model.config).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
