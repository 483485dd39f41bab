"""Confusion matrix of pixels, and the intersection over union that follows from it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

IGNORE = 255
"""label of pixels that count nowhere (void, object borders)"""


class ConfusionMatrix:
    """Counts of pixels by true class (row) and predicted class (column).

    Shapes: count_CC [C, C] int64. Areas are summed over all images before any ratio is taken.
    """

    def __init__(self, num_classes: int, ignore: int = IGNORE) -> None:
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
        cell = truth.astype(np.int64) * num_classes + prediction
        self.count_CC += np.bincount(cell, minlength=num_classes**2).reshape(num_classes, num_classes)

    def iou(self) -> NDArray[np.float64]:
        """Return the IoU of every class in [0, 1]; nan for a class that is neither in truth nor in prediction.

        Shapes: [C].
        """
        hit_C = np.diag(self.count_CC)
        union_C = self.count_CC.sum(0) + self.count_CC.sum(1) - hit_C
        iou_C = np.full(len(hit_C), np.nan)
        np.divide(hit_C, union_C, out=iou_C, where=union_C > 0)
        return iou_C

    def miou(self) -> float:
        """Return the mean IoU over the classes that are in truth or prediction; nan when nothing was counted."""
        iou_C = self.iou()
        return float(np.nanmean(iou_C)) if not np.isnan(iou_C).all() else float("nan")
