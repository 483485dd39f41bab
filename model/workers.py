"""What the workers of a training run share: features gathered with their gradients, and sums."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def num_workers() -> int:
    """Return the number of training processes, 1 outside torch.distributed."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def worker_rank() -> int:
    """Return the position of this process among the workers."""
    return dist.get_rank() if num_workers() > 1 else 0


class _Gather(torch.autograd.Function):
    """All workers' rows in the order of their ranks; each row's gradient is the sum over the workers that used it."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        ctx.num_rows = len(rows)
        gathered = [torch.empty_like(rows) for _ in range(num_workers())]
        dist.all_gather(gathered, rows.contiguous())
        return torch.cat(gathered)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        grad = grads[0].contiguous()
        dist.all_reduce(grad)
        start = worker_rank() * ctx.num_rows
        return grad[start : start + ctx.num_rows]


class _Sum(torch.autograd.Function):
    """The sum over the workers; its gradient is the sum of theirs."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:  # noqa: ARG004
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        grad = grads[0].clone()
        dist.all_reduce(grad)
        return grad


def gather(rows: Tensor) -> Tensor:
    """Return the rows of all workers, those of rank 0 first; gradients flow back to the worker that owns a row.

    Every worker must hold the same number of rows. With one worker the argument itself comes back.
    """
    return rows if num_workers() == 1 else _apply(_Gather, rows)


def sum_over_workers(values: Tensor) -> Tensor:
    """Return the elementwise sum of `values` over all workers, with gradients."""
    return values if num_workers() == 1 else _apply(_Sum, values)


def _apply(function: type[torch.autograd.Function], values: Tensor) -> Tensor:
    result = function.apply(values)
    assert isinstance(result, Tensor)
    return result
