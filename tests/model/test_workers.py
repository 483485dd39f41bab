"""Two gloo workers with half a batch each against one process with the joint batch."""

from __future__ import annotations

import copy
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from model import Batch, LossConfig, ModelConfig, OVSegmentor, Tokens, same_set_positives
from model.projector import SharedBatchNorm
from model.workers import gather, num_workers, sum_over_workers, worker_rank

SET_ID = torch.tensor([4, 9, 4, -1, 9, 7])


def half(value: Any, rank: int) -> Any:
    if isinstance(value, Tokens):
        return Tokens(half(value.input_ids_BL, rank), half(value.attention_mask_BL, rank))
    return None if value is None else value[rank * 3 : rank * 3 + 3]


def half_batch(batch: Batch, rank: int) -> Batch:
    shared = ("nouns", "positives_BB")
    parts = {f.name: half(getattr(batch, f.name), rank) for f in fields(batch) if f.name not in shared}
    return replace(batch, **parts, positives_BB=same_set_positives(half(SET_ID, rank)))


def plain_functions(x: Tensor, rank: int) -> dict[str, Tensor]:
    """What the building blocks give on this worker's rows."""
    rows = half(x, rank).clone().requires_grad_()
    gathered = gather(rows)
    (gathered * torch.arange(1.0, 7.0)[:, None] * (rank + 1)).sum().backward()
    norm = SharedBatchNorm(x.shape[1]).double()
    assert rows.grad is not None
    out = {"gathered": gathered.detach(), "gather_grad": rows.grad.clone()}
    rows.grad = None
    normed = norm(rows)
    (normed * half(x.roll(1), rank)).sum().backward()
    out |= {
        "normed": normed.detach(),
        "norm_grad": rows.grad,
        "mean": norm.running_mean.clone(),
        "var": norm.running_var.clone(),
    }
    maps = norm(x[rank * 2 : rank * 2 + 2, :, None, None] * torch.arange(1.0, 5.0).reshape(2, 2))
    out |= {"maps": maps.detach()}
    return out | {"sum": sum_over_workers(torch.tensor([rank + 1.0]))}


def work(rank: int, folder: Path, model: OVSegmentor, batch: Batch, x: Tensor) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    assert (num_workers(), worker_rank()) == (2, rank)
    model = copy.deepcopy(model)  # what is passed to a spawned process shares its memory
    found = plain_functions(x, rank)
    wrapped = DistributedDataParallel(model)
    losses = wrapped(half_batch(batch, rank))
    losses.total.backward()
    found |= {f"loss.{name}": value.detach() for name, value in vars(losses).items()}
    found |= {f"grad.{name}": p.grad for name, p in model.named_parameters() if p.grad is not None}
    found |= {f"buffer.{name}": value for name, value in model.named_buffers()}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def joint_input() -> Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(0)).double()


@pytest.fixture
def joint(
    paper_config: ModelConfig, make_model: Callable[..., OVSegmentor], make_batch: Callable[..., Batch]
) -> tuple[OVSegmentor, Batch]:
    """Return a model in training mode without noise, and a batch of six, in double precision."""
    image = replace(paper_config.image, gumbel=False, stem="conv", stem_norm="batch")
    model = make_model(
        replace(
            paper_config,
            image=image,
            loss=LossConfig(nouns=1.0, noun_pooling="groups", words=1.0, share_positives=True),
        )
    )
    model = model.double().train()
    model.start_momentum()
    batch = make_batch(model, size=6)
    assert batch.cross_image is not None
    images = {"image": batch.image.double(), "cross_image": batch.cross_image.double()}
    # One worker tells two words, the other one: the mean is over words, not over workers.
    target_BL = torch.full_like(batch.caption.input_ids_BL, -100)
    target_BL[0, 1], target_BL[1, 2], target_BL[4, 1] = 5, 6, 7
    words = {"masked": batch.caption, "masked_target_BL": target_BL}
    return model, replace(batch, **images, **words, positives_BB=same_set_positives(SET_ID))


@pytest.fixture
def workers(joint: tuple[OVSegmentor, Batch], joint_input: Tensor, tmp_path: Path) -> Iterator[list[dict[str, Tensor]]]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    mp.spawn(work, args=(tmp_path, *joint, joint_input), nprocs=2)
    yield [torch.load(tmp_path / f"{rank}.pt") for rank in range(2)]
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]


def test_two_workers_equal_one_with_the_joint_batch(
    joint: tuple[OVSegmentor, Batch], joint_input: Tensor, workers: list[dict[str, Tensor]]
) -> None:
    model, batch = joint
    x = joint_input.clone().requires_grad_()
    norm = SharedBatchNorm(5).double()
    normed = norm(x)
    (normed * joint_input.roll(1)).sum().backward()
    assert x.grad is not None
    maps = SharedBatchNorm(5).double()(joint_input[:4, :, None, None] * torch.arange(1.0, 5.0).reshape(2, 2)).detach()
    for rank, found in enumerate(workers):
        assert torch.equal(found["gathered"], joint_input)
        # Row n is used with factor n by worker 1 and 2n by worker 2.
        torch.testing.assert_close(
            found["gather_grad"], half(3 * torch.arange(1.0, 7.0).double(), rank)[:, None].expand(3, 5)
        )
        assert found["sum"].item() == 3.0
        torch.testing.assert_close(found["normed"], half(normed.detach(), rank))
        torch.testing.assert_close(found["norm_grad"], half(x.grad, rank))
        torch.testing.assert_close(found["maps"], maps[rank * 2 : rank * 2 + 2])
        torch.testing.assert_close(found["mean"], norm.running_mean)
        torch.testing.assert_close(found["var"], norm.running_var)

    losses = model.losses(batch)
    losses.total.backward()
    for name, value in vars(losses).items():
        mean = (workers[0][f"loss.{name}"] + workers[1][f"loss.{name}"]) / 2
        torch.testing.assert_close(mean, value.detach(), msg=lambda text, name=name: f"{name}: {text}")
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert {name for name in workers[0] if name.startswith("grad.")} == {f"grad.{name}" for name in grads}
    for found in workers:
        for name, grad in grads.items():
            torch.testing.assert_close(found[f"grad.{name}"], grad, msg=lambda text, name=name: f"{name}: {text}")
        for name, value in model.named_buffers():
            if name == "text_projector.1.running_var":
                continue  # two workers have the three noun prompts twice: another count, another unbiased variance
            torch.testing.assert_close(found[f"buffer.{name}"], value, msg=lambda text, name=name: f"{name}: {text}")


def test_alone_everything_is_its_own() -> None:
    x = torch.ones(2, 3)
    assert gather(x) is x
    assert sum_over_workers(x) is x
    assert (num_workers(), worker_rank()) == (1, 0)
