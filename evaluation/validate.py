"""One figure of a model on some images of a benchmark, quickly: to watch a training, not to report."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from evaluation.benchmarks import LabelledImages
from evaluation.config import Protocol
from evaluation.metrics import ConfusionMatrix
from evaluation.segment import Segmenter
from model import OVSegmentor


def spread_positions(count: int, wanted: int) -> list[int]:
    """Return at most `wanted` positions of `count`, at even steps from the first to the last."""
    return sorted({round(position) for position in np.linspace(0, count - 1, min(count, wanted))})


def validate(model: OVSegmentor, images: LabelledImages, positions: Sequence[int], protocol: Protocol) -> float:
    """Return the mIoU of the model on the images at `positions`; its mode (training or not) is as before."""
    was_training = model.training
    segmenter = Segmenter(model, images.classes, protocol)
    matrix = ConfusionMatrix(len(images.classes))
    for position in positions:
        image_HWC, truth_HW = images.read(position)
        image_BCHW = torch.from_numpy(image_HWC.transpose(2, 0, 1).copy())[None]
        matrix.update(truth_HW, segmenter.segment(image_BCHW)[0].cpu().numpy())
    model.train(was_training)
    return matrix.miou()
