"""What the model is trained on: a batch, and the checks that its parts fit each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor

from model.config import ModelConfig
from model.text import Tokens
from model.workers import num_workers


@dataclass(frozen=True)
class Batch:
    """One training batch of a worker; what is None takes no part."""

    image: Tensor
    """images, float [B, 3, H, W], normalised"""
    caption: Tokens
    """one caption per image"""
    question: Tokens | None = None
    """the captions with their entities masked"""
    answer: Tokens | None = None
    """prompts that name the masked entities"""
    cross_image: Tensor | None = None
    """another image per image that shows one of its entities, float [B, 3, H, W]"""
    cross_entity: Tokens | None = None
    """prompts that name the shared entity"""
    has_cross_B: Tensor | None = None
    """false where there is no other image and cross_image and cross_entity are blanks; None: there always is"""
    nouns: Tokens | None = None
    """noun prompts, N in all, the same on every worker"""
    noun_labels_BN: Tensor | None = None
    """true where a noun prompt fits an image"""
    masked: Tokens | None = None
    """the captions with some tokens masked or replaced, for masked language modelling"""
    masked_target_BL: Tensor | None = None
    """the tokens that stood there, int64; -100 where a token is what it was"""
    positives_BB: Tensor | None = None
    """true where a caption (columns, of all workers) has the same entity set as an image (rows)"""

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """Return the same batch on `device`."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Batch:
        """Return the same batch in page-locked memory."""
        return self._each(lambda value: value.pin_memory())

    def _each(self, change: Callable[[Any], Any]) -> Batch:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed: dict[str, Any] = {name: None if value is None else change(value) for name, value in values.items()}
        return Batch(**changed)


_TOGETHER = (
    ("question", "answer"),
    ("cross_image", "cross_entity"),
    ("nouns", "noun_labels_BN"),
    ("masked", "masked_target_BL"),
)


def caption_ids(tokens: Tokens) -> Tensor:
    """Return a number per caption, the same for the same tokens whatever the padding. Shapes: -> int64 [B]."""
    ids_BL = tokens.input_ids_BL * tokens.attention_mask_BL
    powers = [1]
    for _ in range(ids_BL.shape[1] - 1):
        powers.append(powers[-1] * 1_000_003 % (2**61 - 1))
    factors = torch.tensor(powers, device=ids_BL.device)
    return (ids_BL * factors).sum(dim=1) & (2**63 - 1)


def check_image(image: Tensor, finite: bool, name: str = "image") -> None:
    """Refuse what is no batch of normalised images, on request also values that are not finite."""
    if image.ndim != 4 or image.shape[1] != 3 or 0 in image.shape or not image.is_floating_point():
        raise ValueError(
            f"{name}: expected normalised float images [batch, 3, height, width], found {image.dtype} "
            f"of shape {tuple(image.shape)}"
        )
    if finite and not bool(image.isfinite().all()):
        bad = [row for row, sample in enumerate(image) if not bool(sample.isfinite().all())]
        raise ValueError(f"{name}: found NaN or infinite values in image {', '.join(map(str, bad[:8]))} of the batch")


def check_batch(batch: Batch, config: ModelConfig, is_training: bool) -> None:
    """Refuse a batch whose parts do not fit each other before anything is computed."""
    is_cheap = not batch.image.is_cuda  # on a GPU the answer would have to be waited for; there the loss tells
    check_image(batch.image, finite=is_cheap)
    size = len(batch.image)
    if is_training and size * num_workers() == 1 and config.projector == "mlp":
        raise ValueError(
            "batch: found a single pair; in training the projectors normalise over the batch: use at least 2 pairs, "
            "or projector = 'linear'"
        )
    for name in ("caption", "question", "answer", "cross_entity", "masked"):
        tokens = getattr(batch, name)
        if tokens is not None and len(tokens) != size:
            raise ValueError(f"{name}: expected one per image, {size}, found {len(tokens)}")
    if batch.cross_image is not None:
        check_image(batch.cross_image, finite=is_cheap, name="cross_image")
        if len(batch.cross_image) != size:
            raise ValueError(f"cross_image: expected one per image, {size}, found {len(batch.cross_image)}")
    for pair in _TOGETHER:
        given = [name for name in pair if getattr(batch, name) is not None]
        if len(given) == 1:
            raise ValueError(f"batch: {given[0]} is given without its partner; give both of {' and '.join(pair)}")
    if config.loss.share_positives and batch.positives_BB is None:
        raise ValueError("batch: loss.share_positives asks for positives_BB; give it or set share_positives to false")
