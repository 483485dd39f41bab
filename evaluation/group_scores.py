"""What an image's groups are, and how well each word fits each of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.config import Protocol
from evaluation.naming import name_regions
from evaluation.pictures import ranked_by_size
from evaluation.segment import Regions, Segmenter, group_map


@dataclass(frozen=True)
class GroupScores:
    """The groups of an image, the largest first; G groups, C classes without background."""

    group_HW: NDArray[np.int64]
    """group of every pixel"""
    share_G: NDArray[np.float64]
    """share of the image's pixels"""
    score_GC: NDArray[np.float32]
    """probability of each class"""


@torch.inference_mode()
def group_scores(segmenter: Segmenter, regions: Regions, protocol: Protocol) -> GroupScores:
    """Return the groups that own a pixel of an image, with the probabilities from which its labels are made."""
    named = name_regions(
        regions.cosine_KGC,
        regions.image_cosine_KC,
        segmenter.model.scale(),
        segmenter.num_words,
        protocol,
        segmenter.has_background,
    )
    number_HW = group_map(regions).cpu().numpy()
    group_HW = ranked_by_size(number_HW)
    _, first = np.unique(group_HW, return_index=True)
    score_GC = named.class_KRC.flatten(0, 1).cpu().numpy()[number_HW.ravel()[first]]
    return GroupScores(group_HW, np.bincount(group_HW.ravel()) / group_HW.size, score_GC)
