"""Recomputation, compilation and mixed precision change the cost of a step, not its result."""

from __future__ import annotations

import shutil
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from model import Batch, ModelConfig, OVSegmentor

Make = Callable[..., OVSegmentor]
MakeBatch = Callable[..., Batch]


def gradients(model: OVSegmentor, batch: Batch) -> tuple[float, dict[str, Tensor]]:
    """Return the loss and the gradients of a training step with seeded noise."""
    model.zero_grad()
    torch.manual_seed(7)
    losses = model.losses(batch)
    losses.total.backward()
    return losses.total.item(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def phase2(make_model: Make, config: ModelConfig) -> OVSegmentor:
    model = make_model(config).train()
    model.start_momentum()
    return model


def assert_close(found: tuple[float, dict[str, Tensor]], expected: tuple[float, dict[str, Tensor]], rel: float) -> None:
    assert found[0] == pytest.approx(expected[0], rel=rel)
    assert found[1].keys() == expected[1].keys()
    largest = max(grad.norm().item() for grad in expected[1].values())
    for name, grad in expected[1].items():
        error = (found[1][name] - grad).norm().item()
        assert error <= rel * max(grad.norm().item(), 1e-2 * largest), name


@pytest.mark.parametrize("which", ["paper_config", "groupvit_config"])
def test_recomputed_activations_give_the_same_gradients(
    which: str, request: pytest.FixtureRequest, make_model: Make, make_batch: MakeBatch
) -> None:
    config: ModelConfig = request.getfixturevalue(which)
    model = make_model(config).train()
    if config.loss.mask > 0:
        model.start_momentum()
    batch = make_batch(model, cross=config.loss.mask > 0)
    expected = gradients(model, batch)
    model.recompute_activations()
    assert_close(gradients(model, batch), expected, rel=1e-6)


def test_recomputation_runs_blocks_again_in_the_backward_pass(
    paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch
) -> None:
    model = make_model(paper_config).train()
    calls = []
    first = model.image_encoder.stages[0].blocks[0]
    first.register_forward_pre_hook(lambda *_: calls.append(1))
    model.recompute_activations()
    gradients(model, make_batch(model, cross=False))
    assert len(calls) == 2


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_blocks_give_the_same_gradients(
    paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch
) -> None:
    model = phase2(make_model, paper_config)
    batch = make_batch(model)
    expected = gradients(model, batch)
    keys = list(model.state_dict())
    model.compile_blocks()
    assert_close(gradients(model, batch), expected, rel=1e-3)
    assert list(model.state_dict()) == keys


def test_bfloat16_stays_near_float32(paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch) -> None:
    model = phase2(make_model, paper_config).eval()  # no noise: a patch on the border of two groups may not jump
    batch = make_batch(model)
    expected = model.losses(batch)
    with torch.autocast("cpu", torch.bfloat16):
        found = model.losses(batch)
    for name in ("contrastive", "entity", "mask"):
        value, exact = getattr(found, name), getattr(expected, name)
        assert value.dtype == torch.float32
        assert value.item() == pytest.approx(exact.item(), rel=0.03), name
    assert found.total.item() != expected.total.item()  # half precision was at work


def test_group_sizes_are_exact_in_bfloat16(paper_config: ModelConfig, make_model: Make) -> None:
    """bfloat16 has no 257; a mean over more patches than that must not be off by it."""
    model = make_model(paper_config).eval()
    image = torch.randn(1, 3, 160, 160, generator=torch.Generator().manual_seed(0)).expand(1, -1, -1, -1)
    with torch.no_grad():
        exact = model.encode_image(image)
        with torch.autocast("cpu", torch.bfloat16):
            near = model.encode_image(image)
    same = exact.assignment.logits_BGN.argmax(1) == near.assignment.logits_BGN.argmax(1)
    assert same.double().mean() > 0.95
    similarity = torch.nn.functional.cosine_similarity(exact.embedding_BE, near.embedding_BE.float())
    assert similarity.min() > 0.995
