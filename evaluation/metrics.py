"""What is counted, and the figures that follow: confusion matrix, IoU, accuracy, best overlap of groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
"""label of pixels that count nowhere (void, object borders)"""


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column).

    Shapes: count_CC [C, C] int64. Areas are summed over all images before any ratio is taken.
    """

    def __init__(self, num_classes: int, ignore: int = IGNORE) -> None:
        if 0 <= ignore < num_classes:
            raise ValueError(f"{num_classes} classes take the label {ignore}, which is to be ignored; choose another")
        self.count_CC: NDArray[np.int64] = np.zeros((num_classes, num_classes), np.int64)
        self.ignore = ignore

    def update(self, truth: NDArray[np.integer], prediction: NDArray[np.integer]) -> None:
        """Add the pixels of one or more label maps of equal shape; pixels whose truth is `ignore` are left out.

        Raises: ValueError when shapes differ or a label is outside the classes.
        """
        if truth.shape != prediction.shape:
            raise ValueError(f"truth has the shape {truth.shape}, the prediction {prediction.shape}: resize one first")
        num_classes = len(self.count_CC)
        counted = truth != self.ignore
        truth, prediction = truth[counted], prediction[counted]
        for name, labels in (("truth", truth), ("prediction", prediction)):
            if labels.size and not (labels.min() >= 0 and labels.max() < num_classes):
                raise ValueError(
                    f"{name} has labels from {labels.min()} to {labels.max()}, but there are {num_classes} classes "
                    f"(0 to {num_classes - 1}) and the ignored label {self.ignore}"
                )
        self.count_CC += count_pairs(truth, prediction, num_classes, num_classes)

    def iou(self) -> NDArray[np.float64]:
        """Return the IoU of every class in [0, 1]; nan for a class that is neither in truth nor in prediction.

        Shapes: [C].
        """
        hit_C = np.diag(self.count_CC)
        return iou(hit_C, self.count_CC.sum(1), self.count_CC.sum(0))

    def miou(self) -> float:
        """Return the mean IoU over the classes that are in truth or prediction; nan when nothing was counted."""
        return mean(self.iou())

    def frequency_weighted_iou(self) -> float:
        """Return the mean of the IoU weighted by the classes' true pixels; nan when nothing was counted.

        Source: Long et al., CVPR 2015 (arXiv 1411.4038), section 5.
        """
        true_C = self.count_CC.sum(1)
        if not true_C.sum():
            return float("nan")
        return float(true_C @ np.nan_to_num(self.iou()) / true_C.sum())

    def pixel_accuracy(self) -> float:
        """Return the share of the counted pixels that have their true class; nan when nothing was counted."""
        total = self.count_CC.sum()
        return float(np.trace(self.count_CC) / total) if total else float("nan")


class BestOverlap:
    """How well regions of an image, whatever their names, cover what is there: average best overlap.

    A true region is all pixels of one class in one image. Its overlap with a group is their IoU, and the best group
    counts: several true regions may take the same one, and no group is asked for its name. Void pixels belong to
    nothing.
    Source: Uijlings et al., "Selective Search for Object Recognition", IJCV 2013, section 5.1 (ABO and MABO).
    """

    def __init__(self, num_classes: int) -> None:
        self.sum_C: NDArray[np.float64] = np.zeros(num_classes)
        self.regions_C: NDArray[np.int64] = np.zeros(num_classes, np.int64)

    def update(self, truth_HW: NDArray[np.integer], group_HW: NDArray[np.integer]) -> None:
        """Add the true regions of an image. Shapes: [H, W] twice."""
        counted = truth_HW != IGNORE
        if not counted.any():
            return
        both_CG = count_pairs(truth_HW[counted], group_HW[counted], len(self.sum_C), int(group_HW.max()) + 1)
        iou_CG = iou(both_CG, both_CG.sum(1, keepdims=True), both_CG.sum(0, keepdims=True))
        is_there_C = both_CG.any(1)
        self.sum_C[is_there_C] += np.nanmax(iou_CG[is_there_C], 1)
        self.regions_C += is_there_C

    def per_class(self) -> NDArray[np.float64]:
        """Return the average best overlap (ABO) of each class; nan for a class without a region. Shapes: [C]."""
        average_C = np.full(len(self.sum_C), np.nan)
        np.divide(self.sum_C, self.regions_C, out=average_C, where=self.regions_C > 0)
        return average_C


def count_pairs(
    truth: NDArray[np.integer], other: NDArray[np.integer], num_truths: int, num_others: int
) -> NDArray[np.int64]:
    """Return how many pixels have each pair of labels. Shapes: any, equal -> [num_truths, num_others]."""
    cell = truth.astype(np.int64) * num_others + other
    count: NDArray[np.int64] = np.bincount(cell.ravel(), minlength=num_truths * num_others)
    return count.reshape(num_truths, num_others)


def iou(hit: NDArray[np.integer], true: NDArray[np.integer], said: NDArray[np.integer]) -> NDArray[np.float64]:
    """Return intersection over union from the areas of the intersection and of both sides; nan where both are empty."""
    union = true + said - hit
    share = np.full(union.shape, np.nan)
    np.divide(hit, union, out=share, where=union > 0)
    return share


def mean(value_C: NDArray[np.float64]) -> float:
    """Return the mean of the values that are not nan; nan when there are none."""
    return float(np.nanmean(value_C)) if not np.isnan(value_C).all() else float("nan")


def number(value: float) -> float | None:
    """Return a figure as JSON takes it: None for nan."""
    return None if math.isnan(value) else float(value)


def seen_and_unseen(iou_C: NDArray[np.float64], classes: Sequence[str], unseen: Sequence[str]) -> Mapping[str, float]:
    """Return mIoU over the unseen classes and over the others (background is neither), and their harmonic mean.

    Source: the generalised zero-shot setting, Xian et al., CVPR 2019 (SPNet).
    Raises: ValueError for an unseen name that is no class.
    """
    if unknown := [name for name in unseen if name not in classes]:
        raise ValueError(f"unseen classes {', '.join(unknown)} are not among the classes: {', '.join(classes)}")
    is_unseen_C = np.array([name in unseen for name in classes])
    is_named_C = np.array([name != "background" for name in classes])
    seen_miou, unseen_miou = mean(iou_C[is_named_C & ~is_unseen_C]), mean(iou_C[is_unseen_C])
    total = seen_miou + unseen_miou
    harmonic = 2 * seen_miou * unseen_miou / total if total else 0.0
    return {"seen_miou": seen_miou, "unseen_miou": unseen_miou, "harmonic_mean": harmonic}
