"""Several rules for what is background, compared on the same images from the same pass of the encoder."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation.config import Protocol
from evaluation.metrics import IGNORE, iou, mean, number
from evaluation.segment import Regions, Segmenter

THRESHOLDS = tuple(step / 20 for step in range(21))
WORDS = (
    *("sky", "cloud", "grass", "ground", "road", "pavement", "sand", "snow", "water", "sea", "river", "tree"),
    *("mountain", "rock", "building", "wall", "floor", "ceiling", "window", "door", "curtain", "fence"),
)
"""background words where the protocol has none: stuff that Pascal Context and COCO-Stuff name most often"""
HIT, TRUE, SAID = range(3)
Areas = NDArray[np.int64]
"""pixels that are rightly, truly and allegedly of each class, by setting and half of the images: [S, 2, 3, C]"""


def with_words(protocol: Protocol, classes: Sequence[str]) -> Protocol:
    """Return the protocol with background words to compare: its own, or those of WORDS that are no class."""
    words = protocol.background_words or tuple(word for word in WORDS if word not in classes)
    return replace(protocol, background_words=words)


def settings(protocol: Protocol) -> list[Protocol]:
    """Return the protocols that are compared: each threshold of each rule that has one, then background words."""
    thresholds = sorted({*THRESHOLDS, protocol.threshold})
    varied = [
        replace(protocol, background=rule, threshold=threshold)
        for rule in ("threshold", "confidence")
        for threshold in thresholds
    ]
    return [*varied, replace(protocol, background="words")]


def count_areas(segmenter: Segmenter, regions: Regions, truth_HW: NDArray[np.uint8], name: str) -> Areas:
    """Return the areas of one image under each of the `settings`. Shapes: truth_HW [H, W] -> [S, 2, 3, C]."""
    compared = settings(segmenter.protocol)
    area_S23C = np.zeros((len(compared), 2, 3, segmenter.num_classes), np.int64)
    counted_HW = truth_HW != IGNORE
    truth_P = truth_HW[counted_HW]
    half = half_of(name)
    labels = [
        *(
            label_HW
            for rule in ("threshold", "confidence")
            for label_HW in segmenter.sweep(
                regions,
                replace(segmenter.protocol, background=rule),
                [protocol.threshold for protocol in compared if protocol.background == rule],
            )
        ),
        segmenter.label(regions, compared[-1]),
    ]
    for setting, label_HW in enumerate(labels):
        if setting and label_HW is labels[setting - 1]:
            area_S23C[setting] = area_S23C[setting - 1]
            continue
        label_P = label_HW.cpu().numpy()[counted_HW]
        for kind, pixels in ((HIT, truth_P[truth_P == label_P]), (TRUE, truth_P), (SAID, label_P)):
            area_S23C[setting, half, kind] = np.bincount(pixels, minlength=segmenter.num_classes)
    return area_S23C


def half_of(name: str) -> int:
    """Return the half of the images, 0 or 1, to which the one of this name belongs, whatever the others are."""
    return hashlib.blake2b(name.encode(), digest_size=1).digest()[0] & 1


def compare(area_S23C: Areas, protocol: Protocol) -> list[dict[str, Any]]:
    """Return a row per rule: its name, its setting in words, and its mIoU.

    A fitted threshold is the best one of the other half of the images: every image counts, and none under a threshold
    that its own mask has had a part in.
    """
    compared = settings(protocol)
    rows = []
    for rule in ("threshold", "confidence"):
        positions = [number for number, setting in enumerate(compared) if setting.background == rule]
        if rule == protocol.background or rule == "threshold":
            own = next(number for number in positions if compared[number].threshold == protocol.threshold)
            rows.append(_row(rule, f"{protocol.threshold:g}", area_S23C[own].sum(0)))
        best = [max(positions, key=lambda at: np.nan_to_num(_miou(area_S23C[at, half]))) for half in (0, 1)]
        if area_S23C[0, :, TRUE].any(-1).all():
            said = " and ".join(f"{compared[at].threshold:g}" for at in best)
            rows.append(
                _row(
                    f"{rule}, fitted",
                    f"{said}, each the best of one half of the images, measured on the other",
                    area_S23C[best[1], 0] + area_S23C[best[0], 1],
                )
            )
    words = compared[-1].background_words
    rows.append(_row("words", f"{len(words)} words: {', '.join(words)}", area_S23C[-1].sum(0)))
    return rows


def threshold_curve(area_S23C: Areas, protocol: Protocol) -> list[tuple[float, float | None]]:
    """Return (threshold, mIoU) of the rule `threshold` over all images, by rising threshold."""
    return [
        (setting.threshold, number(_miou(area_23C.sum(0))))
        for setting, area_23C in zip(settings(protocol), area_S23C, strict=True)
        if setting.background == "threshold"
    ]


def _row(rule: str, setting: str, area_3C: Areas) -> dict[str, Any]:
    return {"rule": rule, "setting": setting, "miou": number(_miou(area_3C))}


def _miou(area_3C: Areas) -> float:
    return mean(iou(area_3C[HIT], area_3C[TRUE], area_3C[SAID]))
