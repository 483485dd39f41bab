"""A benchmark run: figures of models and baselines, per class and per image, with pictures, as JSON.

The folder is its own record: `started.json` names the inputs, `parts/` holds the counts of finished images,
`evaluation.json` comes last. A killed evaluation goes on with the first part that is missing.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from evaluation.atomic import write_bytes, write_json
from evaluation.baselines import BASELINES, baseline_labels
from evaluation.benchmarks import LabelledImages, get_benchmark
from evaluation.config import Protocol
from evaluation.metrics import IGNORE, ConfusionMatrix
from evaluation.pictures import class_picture, encode, group_picture, shrunk_image, shrunk_labels
from evaluation.segment import BACKGROUND, Segmenter
from model import OVSegmentor

logger = logging.getLogger(__name__)

IMAGES_PER_PART = 60
PICTURES_PER_RANK = 6
RESULT, STARTED, PARTS, PICTURES = "evaluation.json", "started.json", "parts", "pictures"


@dataclass(frozen=True)
class _Batch:
    names: list[str]
    image_BCHW: torch.Tensor
    truth_BHW: NDArray[np.uint8]


def evaluate(
    models: Mapping[str, Path | OVSegmentor],
    benchmark: str,
    root: Path,
    out_dir: Path,
    protocol: Protocol | None = None,
) -> dict[str, Any]:
    """Return the figures of models and baselines on a benchmark folder, and write them to out_dir/evaluation.json.

    Baselines and pictures belong to the last model. Masks are read here, for scoring and for the rows marked as
    oracles; models see images and words only. A finished evaluation of the same inputs is read, not repeated.
    Raises: ValueError when out_dir holds an evaluation of other inputs.
    """
    protocol = protocol or Protocol()
    if not models:
        raise ValueError("models = {}: nothing to evaluate; give at least one model by name")
    if taken := sorted(set(models) & set(BASELINES)):
        raise ValueError(f"models may not be called {', '.join(taken)}: baselines have these names")
    images = get_benchmark(benchmark).open(root)
    _begin(out_dir, _inputs(models, benchmark, images, protocol))
    if (out_dir / RESULT).exists():
        logger.info("%s: finished before", out_dir / RESULT)
        finished: dict[str, Any] = json.loads((out_dir / RESULT).read_text())
        return finished
    loaded = {
        name: OVSegmentor.from_pretrained(model) if isinstance(model, Path) else model for name, model in models.items()
    }
    segmenters = {name: Segmenter(model, images.classes, protocol) for name, model in loaded.items()}
    parts = list(_run_parts(segmenters, images, out_dir))
    subject = list(models)[-1]
    result: dict[str, Any] = {
        "benchmark": {"name": benchmark, "title": get_benchmark(benchmark).title, "images": len(images)},
        "classes": images.classes,
        "protocol": asdict(protocol),
        "subject": subject,
        "results": _results(parts, segmenters, images.classes),
        "images": [image for part in parts for image in part["images"]],
    }
    is_plain = {0} if images.classes[0] == BACKGROUND else set()
    with_objects = [image for image in result["images"] if set(image["classes"]) - is_plain]
    ranked = _ranked([(image["name"], image["miou"][subject]) for image in with_objects])
    result["pictures"] = [
        {"rank": rank, "miou": miou, **_draw(segmenters[subject], images, name, out_dir)} for rank, name, miou in ranked
    ]
    result = json.loads(json.dumps(result))
    write_json(out_dir / RESULT, result)
    return result


def _inputs(
    models: Mapping[str, Path | OVSegmentor], benchmark: str, images: LabelledImages, protocol: Protocol
) -> dict[str, Any]:
    files = [path for pair in zip(images.images, images.masks, strict=True) for path in pair]
    return {
        "benchmark": benchmark,
        "files": _digest_files(files),
        "classes": images.classes,
        "protocol": asdict(protocol),
        "models": {
            name: _digest_files(sorted(path for path in model.iterdir() if path.is_file() and path.suffix != ".md"))
            if isinstance(model, Path)
            else _digest_weights(model)
            for name, model in models.items()
        },
    }


def _begin(out_dir: Path, inputs: dict[str, Any]) -> None:
    inputs = json.loads(json.dumps(inputs))
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


def _run_parts(segmenters: dict[str, Segmenter], images: LabelledImages, out_dir: Path) -> Iterator[dict[str, Any]]:
    starts = range(0, len(images), IMAGES_PER_PART)
    began, done = time.monotonic(), 0
    for number, start in enumerate(tqdm(starts, desc="evaluate", unit="part", disable=None)):
        path = out_dir / PARTS / f"{number:05d}.json"
        stop = min(start + IMAGES_PER_PART, len(images))
        if not path.exists():
            write_json(path, _run_part(segmenters, images, range(start, stop)))
            done += stop - start
            rate = done / (time.monotonic() - began)
            eta = (len(images) - stop) / rate
            logger.info("evaluate  images %d/%d  %.1f/s  eta %.0f s", stop, len(images), rate, eta)
        yield json.loads(path.read_text())


def _run_part(segmenters: dict[str, Segmenter], images: LabelledImages, positions: range) -> dict[str, Any]:
    num_classes = len(images.classes)
    totals: dict[str, ConfusionMatrix] = {}
    rows = []
    for batch in _batches(images, positions):
        labels = {name: segmenter.segment(batch.image_BCHW).cpu().numpy() for name, segmenter in segmenters.items()}
        labels |= baseline_labels(list(segmenters.values())[-1], batch.image_BCHW, batch.truth_BHW)
        for position, name in enumerate(batch.names):
            miou = {}
            for method, label_BHW in labels.items():
                matrix = ConfusionMatrix(num_classes)
                matrix.update(batch.truth_BHW[position], label_BHW[position])
                totals.setdefault(method, ConfusionMatrix(num_classes)).count_CC += matrix.count_CC
                miou[method] = _number(matrix.miou())
            rows.append({"name": name, "classes": _present(batch.truth_BHW[position]), "miou": miou})
    return {"images": rows, "confusion": {method: matrix.count_CC.tolist() for method, matrix in totals.items()}}


def _batches(images: LabelledImages, positions: range) -> Iterator[_Batch]:
    # Neighbours in the list that have the same size go through the model together.
    read = ((images.names[position], *images.read(position)) for position in positions)
    for _, same in groupby(read, key=lambda item: item[1].shape):
        names, image_HWCs, truth_HWs = zip(*same, strict=True)
        image_BCHW = torch.from_numpy(np.stack(image_HWCs)).permute(0, 3, 1, 2)
        yield _Batch(list(names), image_BCHW, np.stack(truth_HWs))


def _results(parts: list[dict[str, Any]], models: Iterable[str], classes: tuple[str, ...]) -> list[dict[str, Any]]:
    results = []
    for method in parts[0]["confusion"]:
        matrix = ConfusionMatrix(len(classes))
        for part in parts:
            matrix.count_CC += np.array(part["confusion"][method])
        baseline = BASELINES.get(method)
        results.append(
            {
                "name": method,
                "title": method if baseline is None else baseline.title,
                "description": "" if baseline is None else baseline.description,
                "kind": "model" if method in models else "oracle" if baseline and baseline.is_oracle else "baseline",
                "miou": _number(matrix.miou()),
                "iou": {name: _number(iou) for name, iou in zip(classes, matrix.iou(), strict=True)},
                "confusion": matrix.count_CC.tolist(),
            }
        )
    return results


def _ranked(scored: list[tuple[str, float | None]]) -> list[tuple[str, str, float]]:
    # Best, typical (around the median) and worst images, none of them twice.
    ordered = sorted(((-miou, name) for name, miou in scored if miou is not None))
    count = min(PICTURES_PER_RANK, max(1, len(ordered) // 3))
    middle = (len(ordered) - count) // 2
    ranks = {"best": ordered[:count], "typical": ordered[middle : middle + count], "worst": ordered[-count:][::-1]}
    seen: set[str] = set()
    chosen = []
    for rank, entries in ranks.items():
        for negative, name in entries:
            if name not in seen:
                seen.add(name)
                chosen.append((rank, name, -negative))
    return chosen


def _draw(segmenter: Segmenter, images: LabelledImages, name: str, out_dir: Path) -> dict[str, Any]:
    image_HWC, truth_HW = images.read(images.names.index(name))
    image_BCHW = torch.from_numpy(image_HWC.copy()).permute(2, 0, 1)[None]
    label_HW = segmenter.segment(image_BCHW)[0].cpu().numpy()
    group_HW = segmenter.groups(image_BCHW)[0].cpu().numpy()
    image_HWC = shrunk_image(image_HWC)
    small = {kind: shrunk_labels(labels, image_HWC) for kind, labels in (("truth", truth_HW), ("prediction", label_HW))}
    drawn = {
        "image": (image_HWC, []),
        **{kind: class_picture(image_HWC, labels, images.classes) for kind, labels in small.items()},
        "groups": group_picture(image_HWC, shrunk_labels(group_HW, image_HWC), small["prediction"], images.classes),
    }
    files = {}
    for kind, (picture_HWC, _) in drawn.items():
        content, ending = encode(picture_HWC)
        files[kind] = f"{PICTURES}/{name}-{kind}.{ending}"
        write_bytes(out_dir / files[kind], content)
    height, width = image_HWC.shape[:2]
    legends = {kind: legend for kind, (_, legend) in drawn.items()}
    return {"name": name, "width": width, "height": height, "files": files, "legends": legends}


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


def _present(truth_HW: NDArray[np.uint8]) -> list[int]:
    return [int(label) for label in np.unique(truth_HW) if label != IGNORE]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
