"""What a figure has to be compared with: labels made without groups, without words, or with a look at the truth."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, one_hot

from evaluation.metrics import IGNORE, count_pairs
from evaluation.segment import Regions, Segmenter, at_own_size, group_map, patch_cosines

NUM_CLUSTERS = 8
KMEANS_STEPS = 10
KMEANS_SEED = 0
KMEANS_PIXELS = 4096
"""pixels that the centres are found from; a larger image is sampled at even steps"""

PIXELS_AT_ONCE = 1 << 20
"""pixels whose distances to all centres are held"""

Labels = NDArray[np.int64]


@dataclass(frozen=True)
class Baseline:
    """A row of the report's comparison."""

    title: str
    """name for people"""
    description: str
    """how the labels come about"""
    is_oracle: bool = False
    """the labels use the true masks: an upper bound of something, no method"""


BASELINES: dict[str, Baseline] = {
    "background": Baseline("all background", "every pixel is background"),
    "one_label": Baseline(
        "one label per image", "the whole image gets the name of its largest object, told by the true mask", True
    ),
    "colour_clusters": Baseline(
        "colour clusters, named by the model",
        f"k-means of RGB into {NUM_CLUSTERS} clusters per image; a cluster is named by the mean cosine of its patches",
    ),
    "groups": Baseline("groups, no patches", "every pixel has the name of its likeliest group, as published"),
    "patches": Baseline("patches, no groups", "every patch is named by its own embedding, without groups"),
    "groups_oracle": Baseline(
        "learned groups, true names", "the model's groups, each named by the class that most of its pixels have", True
    ),
    "colour_clusters_oracle": Baseline(
        "colour clusters, true names", "the same clusters, each named by the class that most of its pixels have", True
    ),
}


def baseline_labels(
    segmenter: Segmenter, regions: Regions, cluster_HW: Tensor, truth_HW: NDArray[np.uint8]
) -> dict[str, Labels]:
    """Return the labels of every baseline, name -> labels_HW; the true mask serves the oracles alone.

    "All background" is left out when the classes have no background, "groups" when the model itself names by them
    alone. Naming without groups lets every class be named, whatever the protocol's `top_classes`. The regions must have
    been made with patches.
    Shapes: cluster_HW [H, W] as `colour_clusters` gives it, truth_HW [H, W].
    """
    num_classes = segmenter.num_classes
    cosine_KHW = patch_cosines(regions)
    patch_HW = segmenter.name(cosine_KHW.flatten(1).T[None])[0].view(regions.resized)
    labels = {
        "one_label": largest_object(truth_HW, segmenter.has_background),
        "colour_clusters": _name_clusters(segmenter, cluster_HW, cosine_KHW).numpy(),
        "patches": at_own_size(patch_HW, regions).cpu().numpy(),
        "groups_oracle": name_by_truth(group_map(regions).cpu().numpy(), truth_HW, num_classes),
        "colour_clusters_oracle": name_by_truth(cluster_HW.numpy(), truth_HW, num_classes),
    }
    if segmenter.protocol.patch_share:
        by_groups = replace(segmenter.protocol, assignment="hard", patch_share=0.0)
        labels["groups"] = segmenter.label(regions, by_groups).cpu().numpy()
    if segmenter.has_background:
        labels["background"] = np.zeros(truth_HW.shape, np.int64)
    return {name: labels[name] for name in BASELINES if name in labels}


def colour_clusters(image_BCHW: Tensor, num_clusters: int = NUM_CLUSTERS, seed: int = KMEANS_SEED) -> Tensor:
    """Return each pixel's cluster of colours, by k-means within each image.

    Shapes: [B, 3, H, W] -> [B, H, W] int64.
    """
    pixel_BPC = image_BCHW.flatten(2).mT
    sample_BSC = pixel_BPC[:, :: math.ceil(pixel_BPC.shape[1] / KMEANS_PIXELS)].float()
    centre_BKC = _first_centres(sample_BSC, num_clusters, seed)
    for _ in range(KMEANS_STEPS):
        member_BSK = one_hot(_nearest_centre(sample_BSC, centre_BKC), num_clusters).float()
        size_BK1 = member_BSK.sum(1)[..., None]
        centre_BKC = torch.where(size_BK1 > 0, member_BSK.mT @ sample_BSC / size_BK1.clamp(min=1), centre_BKC)
    few = torch.split(pixel_BPC, PIXELS_AT_ONCE, 1)
    cluster_BP = torch.cat([_nearest_centre(pixel_BSC.float(), centre_BKC) for pixel_BSC in few], 1)
    return cluster_BP.view(len(image_BCHW), *image_BCHW.shape[-2:])


def largest_object(truth_HW: NDArray[np.uint8], has_background: bool) -> Labels:
    """Return one label for the whole image: the most frequent true class, background if there is no other."""
    count_C = np.bincount(truth_HW[truth_HW != IGNORE].ravel(), minlength=1)
    if has_background and count_C[1:].any():
        count_C[0] = 0
    return np.full(truth_HW.shape, count_C.argmax(), np.int64)


def name_by_truth(region_HW: Labels, truth_HW: NDArray[np.uint8], num_classes: int) -> Labels:
    """Return labels in which each region of an image has the class that most of its pixels truly have.

    Shapes: [H, W] twice -> [H, W]. A region that is all void gets label 0, which counts nowhere.
    """
    counted = truth_HW != IGNORE
    count_CR = count_pairs(truth_HW[counted], region_HW[counted], num_classes, int(region_HW.max()) + 1)
    label_R: Labels = count_CR.argmax(0)
    return label_R[region_HW]


def _first_centres(pixel_BPC: Tensor, num_clusters: int, seed: int) -> Tensor:
    # As k-means++ draws them, but by the same seeded numbers in every image: its clusters do not depend on the batch.
    draw_K = torch.rand(num_clusters, generator=torch.Generator().manual_seed(seed)).to(pixel_BPC.device)
    distance_BP = torch.ones_like(pixel_BPC[..., 0])
    centres: list[Tensor] = []
    for draw in draw_K:
        share_BP = distance_BP.double().cumsum(1)
        chosen_B1 = torch.searchsorted(share_BP, share_BP[:, -1:] * draw).clamp(max=share_BP.shape[1] - 1)
        centre_B1C = pixel_BPC.take_along_dim(chosen_B1[..., None], 1)
        from_centre_BP = (pixel_BPC - centre_B1C).square().sum(-1)
        distance_BP = distance_BP.minimum(from_centre_BP) if centres else from_centre_BP
        centres.append(centre_B1C)
    return torch.cat(centres, 1)


def _nearest_centre(pixel_BPC: Tensor, centre_BKC: Tensor) -> Tensor:
    # |p - c|^2 without the term that is the same for all centres.
    return (centre_BKC.square().sum(-1)[:, None] - 2 * pixel_BPC @ centre_BKC.mT).argmin(-1)


def _name_clusters(segmenter: Segmenter, cluster_HW: Tensor, cosine_KHW: Tensor) -> Tensor:
    """Return the label of each pixel, its cluster's; a cluster's cosines are the mean of those of its pixels."""
    size = cosine_KHW.shape[1:]
    small_HW = interpolate(cluster_HW[None, None].float(), size, mode="nearest-exact")[0, 0].long()
    member_RP = one_hot(small_HW.flatten(), NUM_CLUSTERS).T.to(cosine_KHW)
    mean_RK = member_RP @ cosine_KHW.flatten(1).T / member_RP.sum(-1, keepdim=True).clamp(min=1)
    return segmenter.name(mean_RK[None])[0].cpu()[cluster_HW]
