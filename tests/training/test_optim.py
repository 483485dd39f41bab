import math

import pytest
import torch
from torch import nn

from training.config import OptimConfig
from training.optim import apply_gradients, build_optimizer, learning_rate


def test_learning_rate_rises_then_falls_along_a_cosine() -> None:
    config = OptimConfig(lr=1.0, min_lr=0.1, warmup_steps=4)
    rates = [learning_rate(step, 13, config) for step in range(13)]
    assert rates[:4] == [0.25, 0.5, 0.75, 1.0]
    assert rates[4] == 1.0
    assert rates[8] == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi * 0.5)) / 2)
    assert rates[12] == pytest.approx(0.1)


def test_only_trained_matrices_decay() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2), nn.Linear(2, 2))
    model[2].requires_grad_(False)
    decayed, plain = build_optimizer(model, OptimConfig(weight_decay=0.3)).param_groups
    assert [list(p.shape) for p in decayed["params"]] == [[2, 3]]
    assert decayed["weight_decay"] == 0.3
    assert [list(p.shape) for p in plain["params"]] == [[2], [2], [2]]
    assert plain["weight_decay"] == 0


def test_gradients_are_clipped_and_their_norm_returned() -> None:
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=9.0)
    weight.grad = torch.tensor([3.0, 4.0])
    assert apply_gradients(optimizer, lr=1.0, clip_norm=1.0).item() == pytest.approx(5.0)
    assert weight.tolist() == pytest.approx([-0.6, -0.8], abs=1e-5)
    assert weight.grad is None


def test_a_gradient_that_is_not_finite_changes_no_weight() -> None:
    weight = nn.Parameter(torch.ones(2))
    weight.grad = torch.tensor([float("nan"), 1.0])
    assert not apply_gradients(torch.optim.SGD([weight], lr=1.0), 1.0, 1.0).isfinite()
    assert weight.tolist() == [1.0, 1.0]
