"""Names of regions: the probabilities of classes, and what makes a region background.

Shapes: K windows, R regions of a window, C classes (background apart), W background words.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from evaluation.config import Protocol


@dataclass(frozen=True)
class Named:
    """How well the classes fit each region, and how well background does."""

    class_KRC: Tensor
    """probability of each class"""
    background_KR: Tensor | None
    """score of background, which wins where no class has more; None without background"""
    surety_KR: Tensor | None
    """what the protocol's threshold is compared with; None where background has no threshold"""


def name_regions(
    cosine_KRC: Tensor,
    image_cosine_KC: Tensor | None,
    scale: Tensor | float,
    num_words: int,
    protocol: Protocol,
    has_background: bool,
) -> Named:
    """Return the names of regions from their cosines with classes and background words.

    `image_cosine_KC`, of whole windows, is asked which classes may be named when the protocol limits them.
    Shapes: cosine_KRC [K, R, C + W], image_cosine_KC [K, C + W].
    """
    num_classes = cosine_KRC.shape[-1] - num_words
    logit_KRC = cosine_KRC[..., :num_classes] * scale
    by_words = has_background and protocol.background == "words"
    if by_words:
        word_KR1 = cosine_KRC[..., num_classes:].amax(-1, keepdim=True) * scale
        logit_KRC = torch.cat([word_KR1, logit_KRC], -1)
    plain_KRC = named_KRC = logit_KRC.softmax(-1)
    if protocol.top_classes is not None and image_cosine_KC is not None:
        allowed_KC = _top(image_cosine_KC[:, :num_classes], protocol.top_classes)
        if by_words:
            allowed_KC = torch.cat([torch.ones_like(allowed_KC[:, :1]), allowed_KC], -1)
        named_KRC = plain_KRC * logit_KRC.masked_fill(~allowed_KC[:, None], -torch.inf).softmax(-1)
    if by_words:
        return Named(named_KRC[..., 1:], named_KRC[..., 0], None)
    if not has_background:
        return Named(named_KRC, None, None)
    surety_KR = named_KRC.amax(-1) if protocol.background == "threshold" else _confidence(plain_KRC)
    return Named(named_KRC, is_background(surety_KR, protocol).to(named_KRC.dtype), surety_KR)


def is_background(surety_KR: Tensor, protocol: Protocol) -> Tensor:
    """Return which regions are background under the protocol's threshold. Shapes: [K, R] -> [K, R] bool.

    Under `threshold` the surest region of a window always counts as an object, as published; under `confidence` a
    window may be background throughout.
    """
    limit = protocol.threshold
    if protocol.background == "threshold":
        return surety_KR < surety_KR.amax(-1, keepdim=True).clamp(max=limit)
    return surety_KR < limit


def contenders(score_RC: Tensor) -> Tensor:
    """Return the classes that can be best somewhere in a mix of regions, in rising order: [C'] of [R, C].

    A class that another one equals or beats in every region stays behind it in every average with weights >= 0; of
    equals the first stays, as argmax takes it.
    """
    num_classes = score_RC.shape[1]
    below_CC = torch.ones(num_classes, num_classes, dtype=torch.bool, device=score_RC.device)
    strictly_CC = below_CC.clone()
    for score_C in score_RC:
        below_CC &= score_C[:, None] <= score_C
        strictly_CC &= score_C[:, None] < score_C
    return (~(below_CC.tril(-1) | strictly_CC).any(1)).nonzero()[:, 0]


def _confidence(plain_KRC: Tensor) -> Tensor:
    """Return 1 - entropy / log C: 1 where one class has all probability, 0 where all have the same.

    Unlike the best probability, or its lead over the next, it stays high between two alike classes (a cat or a dog):
    that is an object, whichever.
    """
    entropy_KR: Tensor = torch.special.entr(plain_KRC).sum(-1)
    return 1 - entropy_KR / math.log(max(2, plain_KRC.shape[-1]))


def _top(cosine_KC: Tensor, count: int) -> Tensor:
    position_KT = cosine_KC.topk(min(count, cosine_KC.shape[-1]), -1).indices
    return torch.zeros_like(cosine_KC, dtype=torch.bool).scatter(-1, position_KT, True)
