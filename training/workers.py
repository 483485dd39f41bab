"""What the workers of a phase say to each other besides gradients; with one worker nothing is said."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist

from model import Losses
from model.workers import num_workers

LOSSES = ("contrastive", "entity", "mask", "nouns", "words", "total")


def wait_for_all() -> None:
    """Return when every worker has come here."""
    if num_workers() > 1:
        dist.barrier()


def from_all(value: Any) -> list[Any]:
    """Return the values of all workers, by rank."""
    values = [value] * num_workers()
    if num_workers() > 1:
        dist.all_gather_object(values, value)
    return values


def mean_losses(losses: Losses) -> dict[str, float | None]:
    """Return the losses of the joint batch as numbers; None where a loss is left out."""
    values = [getattr(losses, name) for name in LOSSES]
    row = torch.stack([torch.zeros_like(losses.total) if value is None else value.detach() for value in values])
    if num_workers() > 1:
        dist.all_reduce(row)
    means = (row / num_workers()).tolist()
    return {name: None if value is None else mean for name, value, mean in zip(LOSSES, values, means, strict=True)}
