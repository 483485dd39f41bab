"""What an image's groups are, and how well each word fits each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.pictures import ranked_by_size
from evaluation.segment import Segmenter


@dataclass(frozen=True)
class GroupScores:
    """The groups of an image, the largest first; G groups, C classes."""

    group_HW: NDArray[np.int64]
    """group of every pixel"""
    share_G: NDArray[np.float64]
    """share of the image's pixels"""
    score_GC: NDArray[np.float64]
    """probability of each class, averaged over the group's pixels"""


def group_scores(segmenter: Segmenter, image_HWC: NDArray[np.uint8]) -> GroupScores:
    """Return the groups of an image with the scores of all classes, as the labels follow from them.

    Shapes: image_HWC [H, W, 3].
    """
    image_BCHW = torch.from_numpy(image_HWC).permute(2, 0, 1)[None]
    group_HW = ranked_by_size(segmenter.groups(image_BCHW)[0].cpu().numpy())
    size_G = np.bincount(group_HW.ravel())
    score_CHW = segmenter.logits(image_BCHW)[0].double().cpu().numpy()
    total_CG = [np.bincount(group_HW.ravel(), weights=score_HW.ravel()) for score_HW in score_CHW]
    return GroupScores(group_HW, size_G / size_G.sum(), np.stack(total_CG, -1) / size_G[:, None])
