"""The losses. Each speaks for the joint batch of all workers: the mean over workers is the loss of the joint batch.

Shape letters: B pairs on this worker, A pairs on all workers, N prompts, G groups, E embedding, P patches.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec

import torch
import torch.nn.functional as F
from torch import Tensor

from model.matching import match
from model.workers import gather, num_workers, sum_over_workers, worker_rank

P = ParamSpec("P")


def in_float32(loss: Callable[P, Tensor]) -> Callable[P, Tensor]:
    """Compute a loss in float32 at least, whatever autocast says: its differences are finer than bfloat16's steps."""

    @functools.wraps(loss)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> Tensor:
        device = next(arg for arg in args if isinstance(arg, Tensor)).device.type
        with torch.autocast(device, enabled=False):
            return loss(*(_widened(arg) for arg in args), **{key: _widened(arg) for key, arg in kwargs.items()})

    return wrapped


def _widened(value: Any) -> Any:
    is_narrow = isinstance(value, Tensor) and value.dtype in (torch.bfloat16, torch.float16)
    return value.float() if is_narrow else value


@in_float32
def contrastive(image_BE: Tensor, text_BE: Tensor, scale: Tensor, positives_BA: Tensor | None = None) -> Tensor:
    """Return the symmetric contrastive loss (InfoNCE) over all workers' pairs, a scalar.

    Without `positives_BA` the text of an image is its own only; with it, all marked texts share the target equally.
    Shapes: image_BE [B, E], text_BE [B, E], scale [], positives_BA [B, A] bool, the same relation both ways.
    Source: paper section 3.1, equation 3.
    """
    image_BE, text_BE = F.normalize(image_BE, dim=-1), F.normalize(text_BE, dim=-1)
    image_logits_BA = scale * image_BE @ gather(text_BE).T
    text_logits_BA = scale * text_BE @ gather(image_BE).T
    size = len(image_BE)
    if positives_BA is None:
        target = torch.arange(size, device=image_BE.device) + size * worker_rank()
    else:
        _check_positives(positives_BA, size)
        target = _shares(positives_BA.to(image_BE.dtype))
    return (F.cross_entropy(image_logits_BA, target) + F.cross_entropy(text_logits_BA, target)) / 2


@in_float32
def multi_label_contrastive(image_BGE: Tensor, prompt_NE: Tensor, labels_BN: Tensor, scale: Tensor) -> Tensor:
    """Return the symmetric contrastive loss between images and noun prompts of which several fit an image, a scalar.

    An image without a prompt, and a prompt without an image, has nothing to say and is left out of the mean.
    All workers must hold the same prompts in the same order.
    An image may speak through several embeddings, such as its groups': a prompt is compared with each, and the logits
    are pooled by log-mean-exp, so that one group that fits is enough.
    Shapes: image_BGE [B, G, E] or [B, E], prompt_NE [N, E], labels_BN [B, N] true where the prompt fits.
    Source: GroupViT section 3.3 (multi-label contrastive loss); there a prompt's second image counts as a negative.
    """
    if labels_BN.shape != (len(image_BGE), len(prompt_NE)):
        raise ValueError(
            f"noun_labels_BN: expected shape [{len(image_BGE)} images, {len(prompt_NE)} prompts], "
            f"found {tuple(labels_BN.shape)}"
        )
    labels_AN = gather(labels_BN.to(image_BGE.dtype))
    image_AGE = gather(image_BGE if image_BGE.ndim == 3 else image_BGE[:, None])
    logits_AGN = scale * F.normalize(image_AGE, dim=-1) @ F.normalize(prompt_NE, dim=-1).T
    logits_AN = logits_AGN.logsumexp(dim=1) - math.log(image_AGE.shape[1])
    return (_mean_over_labelled(logits_AN, labels_AN) + _mean_over_labelled(logits_AN.T, labels_AN.T)) / 2


@in_float32
def word_prediction(logits_MV: Tensor, target_M: Tensor) -> Tensor:
    """Return the mean cross entropy of masked tokens over those of all workers, a scalar; zero when there are none.

    Shapes: logits_MV [M, V], target_M int64 [M].
    """
    num_masked = sum_over_workers(logits_MV.new_tensor(float(len(target_M)))).clamp(min=1)
    return F.cross_entropy(logits_MV, target_M, reduction="sum") * num_workers() / num_masked


def pairwise_dice(prediction_BGP: Tensor, target_BGP: Tensor) -> Tensor:
    """Return the soft dice loss of every predicted mask with every target mask.

    Shapes: prediction_BGP [B, G, P] in [0, 1], target_BGP [B, G, P] in [0, 1] -> [B, G, G], prediction first.
    """
    overlap_BGG = prediction_BGP @ target_BGP.transpose(1, 2)
    area_BGG = prediction_BGP.sum(dim=2)[:, :, None] + target_BGP.sum(dim=2)[:, None, :]
    return 1 - (2 * overlap_BGG + 1) / (area_BGG + 1)


@in_float32
def mask_consistency(
    prediction_BGP: Tensor,
    target_BGP: Tensor,
    affinity_BG: Tensor,
    group_ratio: float,
    threshold: float,
    has_cross_B: Tensor | None = None,
) -> Tensor:
    """Return how far two views of one entity disagree on its masks: mean dice of the matched masks, a scalar.

    Similarities are scaled to [0, 1] over the patches, targets cut at `threshold`; predictions and targets are matched
    one to one at least cost, then the share `group_ratio` of the groups closest to the entity is averaged. Images
    without a cross image are left out of the mean; it is zero when no worker has one.
    Shapes: prediction_BGP, target_BGP similarity of queries and patches [B, G, P]; affinity_BG [B, G] of groups to the
    entity; has_cross_B bool [B], None for true.
    Source: paper section 3.3; differences from the release are in ARCHITECTURE.md.
    """
    target_BGP = (_stretch(target_BGP.detach()) >= threshold).to(prediction_BGP.dtype)
    dice_BGG = pairwise_dice(_stretch(prediction_BGP), target_BGP)
    dice_BG = dice_BGG.gather(2, match(dice_BGG)[..., None])[..., 0]
    num_chosen = max(1, round(affinity_BG.shape[1] * group_ratio))
    dice_B = dice_BG.gather(1, affinity_BG.topk(num_chosen, dim=1).indices).mean(dim=1)
    if has_cross_B is None:
        return dice_B.mean()
    num_cross = sum_over_workers(has_cross_B.sum().to(dice_B.dtype)).clamp(min=1)
    return (dice_B * has_cross_B).sum() * num_workers() / num_cross


def _stretch(x_BGP: Tensor) -> Tensor:
    """Return each mask scaled to [0, 1]; a constant mask becomes zero."""
    low, high = x_BGP.amin(dim=2, keepdim=True), x_BGP.amax(dim=2, keepdim=True)
    return (x_BGP - low) / (high - low).clamp(min=1e-6)


def _shares(labels: Tensor) -> Tensor:
    """Return labels as targets whose rows sum to one; a row without a label stays zero."""
    return labels / labels.sum(dim=1, keepdim=True).clamp(min=1)


def _mean_over_labelled(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the mean cross entropy of the rows that have a label; zero when none has."""
    loss = -(_shares(labels) * logits.log_softmax(dim=1)).sum(dim=1)
    return loss.sum() / (labels.sum(dim=1) > 0).sum().clamp(min=1)


def _check_positives(positives_BA: Tensor, size: int) -> None:
    expected = (size, size * num_workers())
    if positives_BA.shape != expected:
        raise ValueError(
            f"positives_BB: expected shape {expected} (pairs here, pairs on all workers), "
            f"found {tuple(positives_BA.shape)}"
        )


def same_set_positives(set_id_B: Tensor) -> Tensor:
    """Return which pairs of all workers have the same entity set as each pair here, themselves included.

    Shapes: set_id_B int64 [B], equal for equal sets; negative for a caption that shares with none -> bool [B, A].
    """
    set_id_A = gather(set_id_B)
    own = torch.arange(len(set_id_A), device=set_id_B.device) - len(set_id_B) * worker_rank()
    itself_BA = own == torch.arange(len(set_id_B), device=set_id_B.device)[:, None]
    return itself_BA | ((set_id_B[:, None] == set_id_A) & (set_id_B[:, None] >= 0))
