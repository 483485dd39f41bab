"""The gradient of a large batch with the activations of a part of it at a time, exact for the contrastive losses.

The encoders see one sample at a time as far as results go; heads and losses see the batch. So the parts go through the
encoders first without keeping activations; the losses of the whole batch give a gradient for each encoder output; then
each part goes through again, with the same noise, and takes its gradient back through the encoders.
Source: the idea is GradCache's (arXiv 2101.06983).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import pad

from model import Batch, Encoded, Losses, OVSegmentor
from model.workers import num_workers

TRAINED = ("group_BGD", "query_BGD", "caption_BD", "question_BLD", "answer_BD", "noun_ND", "masked_BLD")
"""encoder outputs that losses have gradients for; the others serve as targets"""


def backward_in_parts(model: OVSegmentor, batch: Batch, num_parts: int) -> Losses:
    """Add the gradient of a batch's total loss to the parameters; return the losses.

    Equals `model.losses(batch).total.backward()` but for rounding, where the model draws no noise. Gradients of several
    workers are left as each has them: see `average_gradients`.
    Memory: activations of one part, and encoder outputs of all.
    """
    parts = split(batch, num_parts)
    generators, outputs = [], []
    with torch.no_grad():
        for part in parts:
            generators.append(_generators(batch.image.device))
            outputs.append(model.encode(part))
    whole = join(outputs)
    leaves = {name: getattr(whole, name).requires_grad_() for name in TRAINED if getattr(whole, name) is not None}
    losses = model.losses_of(whole, batch)
    losses.total.backward()  # type: ignore[no-untyped-call]
    first = 0
    for part, generator in zip(parts, generators, strict=True):
        _restore(generator, batch.image.device)
        again = model.encode(replace(part, cross_image=None, cross_entity=None))
        rows = slice(first, first + len(part.image))
        _take_back(again, leaves, rows)
        first = rows.stop
    return losses


def split(batch: Batch, num_parts: int) -> list[Batch]:
    """Return the batch's samples in parts of equal size; the noun prompts, which belong to none, go with the first."""
    size = len(batch.image) // num_parts
    if size * num_parts != len(batch.image):
        raise ValueError(f"a batch of {len(batch.image)} samples does not split into {num_parts} equal parts")

    def part(start: int) -> Batch:
        alone = replace(batch, nouns=None, noun_labels_BN=None, positives_BB=None)
        given = {field.name: getattr(alone, field.name) for field in fields(Batch)}
        rows: dict[str, Any] = {name: value[start : start + size] for name, value in given.items() if value is not None}
        return Batch(**rows, nouns=None if start else batch.nouns)

    return [part(start) for start in range(0, len(batch.image), size)]


def join(parts: Sequence[Encoded]) -> Encoded:
    """Return the encoder outputs of all parts as those of one batch."""
    joined: dict[str, Any] = {
        field.name: _joined([getattr(part, field.name) for part in parts]) for field in fields(Encoded)
    }
    return Encoded(**joined)


@torch.no_grad()
def average_gradients(module: nn.Module) -> None:
    """Replace each gradient by its mean over the workers, in one message."""
    if num_workers() == 1:
        return
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    flat = nn.utils.parameters_to_vector(gradients)
    dist.all_reduce(flat)
    nn.utils.vector_to_parameters(flat / num_workers(), gradients)


def _take_back(again: Encoded, leaves: dict[str, Tensor], rows: slice) -> None:
    outputs, gradients = [], []
    for name, leaf in leaves.items():
        output = getattr(again, name)
        if output is None or not output.requires_grad or leaf.grad is None:  # a frozen text tower has no gradient
            continue
        gradient = leaf.grad if name == "noun_ND" else leaf.grad[rows]
        if name.endswith("_BLD"):  # a part is as long as its longest caption
            gradient = gradient[:, : output.shape[1]]
        outputs.append(output)
        gradients.append(gradient)
    torch.autograd.backward(outputs, gradients)


def _joined(values: Sequence[Tensor | None]) -> Tensor | None:
    given = [value for value in values if value is not None]
    if not given:
        return None
    if given[0].ndim == 3:  # questions of a part are as long as its longest
        longest = max(value.shape[1] for value in given)
        given = [pad(value, (0, 0, 0, longest - value.shape[1])) for value in given]
    return torch.cat(given)


def _generators(device: torch.device) -> tuple[Tensor, Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None


def _restore(state: tuple[Tensor, Tensor | None], device: torch.device) -> None:
    torch.set_rng_state(state[0])
    if state[1] is not None:
        torch.cuda.set_rng_state(state[1], device)
