"""Images to look at: the best, typical and worst of an evaluation, with the groups and labels of every model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.atomic import write_bytes
from evaluation.benchmarks import LabelledImages
from evaluation.pictures import Legend, class_picture, encode, group_picture, shrunk_image, shrunk_labels
from evaluation.segment import Segmenter, group_map

PICTURES = "pictures"
PICTURES_PER_RANK = 6


def ranked(scored: list[tuple[str, float | None]]) -> list[tuple[str, str, float]]:
    """Return rank, name and score of the best, the typical (around the median) and the worst, none of them twice."""
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


def draw(segmenters: Mapping[str, Segmenter], images: LabelledImages, name: str, out_dir: Path) -> dict[str, Any]:
    """Write the pictures of an image; return its name, size, files and legends.

    `files` and `legends` have image, truth, and prediction and groups of the last model; `models` has prediction and
    groups of each.
    """
    image_HWC, truth_HW = images.read(images.names.index(name))
    image_CHW = torch.from_numpy(image_HWC).permute(2, 0, 1)
    small_HWC = shrunk_image(image_HWC)
    truth = class_picture(small_HWC, shrunk_labels(truth_HW, small_HWC), images.classes, images.has_voc_colours)
    shared = _write({"image": (small_HWC, []), "truth": truth}, name, out_dir)
    models = {}
    for number, (model, segmenter) in enumerate(segmenters.items()):
        regions = segmenter.regions([image_CHW])[0]
        label_HW = shrunk_labels(segmenter.label(regions).cpu().numpy(), small_HWC)
        group_HW = shrunk_labels(group_map(regions).cpu().numpy(), small_HWC)
        drawn = {
            "prediction": class_picture(small_HWC, label_HW, images.classes, images.has_voc_colours),
            "groups": group_picture(small_HWC, group_HW, label_HW, images.classes),
        }
        models[model] = _write(drawn, f"{name}-{number}", out_dir)
    last = models[list(models)[-1]]
    return {
        "name": name,
        "width": small_HWC.shape[1],
        "height": small_HWC.shape[0],
        "files": shared["files"] | last["files"],
        "legends": shared["legends"] | last["legends"],
        "models": models,
    }


def _write(drawn: Mapping[str, tuple[NDArray[np.uint8], Legend]], stem: str, out_dir: Path) -> dict[str, Any]:
    files = {}
    for kind, (picture_HWC, _) in drawn.items():
        content, ending = encode(picture_HWC)
        files[kind] = f"{PICTURES}/{stem}-{kind}.{ending}"
        write_bytes(out_dir / files[kind], content)
    return {"files": files, "legends": {kind: legend for kind, (_, legend) in drawn.items()}}
