"""From the width of an encoder to the space that image and text share."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.config import ModelConfig
from model.workers import num_workers, sum_over_workers


class SharedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over the samples of all workers, on any device (torch's SyncBatchNorm refuses the CPU)."""

    def _check_input_dim(self, input: Tensor) -> None:  # noqa: A002
        """Take rows and feature maps alike."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        """Shapes: input [rows, C] or [B, C, H, W] -> the same."""
        if not self.training or num_workers() == 1:
            return super().forward(input)
        x = input.to(torch.promote_types(input.dtype, torch.float32))
        dims, shape = [0, *range(2, x.ndim)], (-1, *[1] * (x.ndim - 2))
        count = sum_over_workers(torch.full((), x.numel() / x.shape[1], dtype=x.dtype, device=x.device))
        mean = sum_over_workers(x.sum(dim=dims)) / count
        centred = x - mean.reshape(shape)
        variance = sum_over_workers(centred.square().sum(dim=dims)) / count
        self._update(mean.detach(), variance.detach() * count / (count - 1))
        factor = (variance + self.eps).rsqrt() * self.weight
        return (centred * factor.reshape(shape) + self.bias.reshape(shape)).to(input.dtype)

    @torch.no_grad()
    def _update(self, mean: Tensor, variance: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        self.num_batches_tracked += 1
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance, self.momentum)


def build_projector(width: int, config: ModelConfig) -> nn.Module:
    """Return the projector from `width` channels to the shared space that `config` asks for."""
    if config.projector == "linear":
        return nn.Linear(width, config.embedding_width)
    return nn.Sequential(
        nn.Linear(width, config.projector_width),
        SharedBatchNorm(config.projector_width),
        nn.ReLU(),
        nn.Linear(config.projector_width, config.embedding_width),
    )
