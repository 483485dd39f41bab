from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from model.config import ImageConfig
from model.grouping import GroupingBlock, ImageEncoder, Similarity

PAPER = ImageConfig(
    image_size=16, patch_size=4, width=12, num_heads=2, depths=(1, 1), num_group_tokens=(6,), num_groups=(4,)
)
SMALL = replace(PAPER, stem="conv", depths=(0, 0), query="assignment", similarity="cosine")


def plain_grouping(block: GroupingBlock, patch: Tensor, token: Tensor) -> Tensor:
    """Values of all patches, a hard choice per patch, a mean per group, one patch after the other."""
    patch = block.norm_patches(patch)
    mixed = block.norm_tokens(token).mT
    for layer in block.mix_tokens:
        mixed = layer(mixed)
    query = block.cross(block.norm_queries(mixed.mT), patch)
    q, k, v = block.q_proj(query), block.k_proj(patch), block.v_proj(patch)
    if block.similarity.log_scale is not None:
        q, k = F.normalize(q, dim=-1) * block.similarity.log_scale.exp(), F.normalize(k, dim=-1)
    else:
        q = q / math.sqrt(q.shape[-1])
    total, count = torch.zeros(q.shape), torch.zeros(q.shape[:2])
    for b in range(len(patch)):
        for n in range(patch.shape[1]):
            group = int(torch.stack([q[b, g] @ k[b, n] for g in range(q.shape[1])]).argmax())
            total[b, group] += v[b, n]
            count[b, group] += 1
    out = block.proj(total / (count[..., None] + block.eps))
    out = out + query if block.adds_query else out
    return out + block.mlp(block.norm_groups(out))


@pytest.mark.parametrize("config", [PAPER, SMALL])
def test_grouping_equals_its_plain_version(config: ImageConfig) -> None:
    torch.manual_seed(0)
    block = GroupingBlock(config, 6, 4, 2).eval()
    patch, token = torch.randn(2, 9, 12), torch.randn(2, 6, 12)
    torch.testing.assert_close(block(patch, token)[0], plain_grouping(block, patch, token))


@pytest.mark.parametrize("config", [PAPER, SMALL])
def test_each_patch_alone_is_what_a_group_of_this_patch_would_be(config: ImageConfig) -> None:
    torch.manual_seed(0)
    block = GroupingBlock(replace(config, assign_eps=1e-9), 6, 4, 2).eval()
    patch, token = torch.randn(1, 9, 12), torch.randn(1, 6, 12)
    with torch.no_grad():
        # All patches alike: whatever group they fall to has their common value as its mean.
        patch = patch[:, :1].expand(-1, 9, -1)
        groups, assignment = block(patch, token)
        singles = block.singly(patch, token)
    winner = int(assignment.logits_BGN[0, :, 0].argmax())
    torch.testing.assert_close(singles[0, 0], groups[0, winner])


@pytest.mark.parametrize("config", [PAPER, SMALL])
def test_soft_assignments_sum_to_one_and_are_free_of_noise(config: ImageConfig) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(config).train()
    image = torch.randn(2, 3, 16, 24)
    groups, assignment, grid = encoder(image)
    assert (groups.shape, assignment.soft_BGN.shape, grid) == ((2, 4, 12), (2, 4, 24), (4, 6))
    torch.testing.assert_close(assignment.soft_BGN.sum(dim=1), torch.ones(2, 24))
    block = encoder.stages[0].grouping
    assert isinstance(block, GroupingBlock)
    expected = block.similarity(assignment.query_BGD, assignment.key_BND).softmax(dim=1)
    torch.testing.assert_close(assignment.soft_BGN, expected)


def test_hard_assignment_passes_the_gradient_of_the_softmax() -> None:
    torch.manual_seed(0)
    block = GroupingBlock(PAPER, 6, 4, 2).eval()
    logits = torch.randn(2, 4, 9, requires_grad=True)
    weight = torch.randn(2, 4, 9)
    hard = block._harden(logits)
    assert set(hard.detach().unique().tolist()) <= {0.0, 1.0}
    assert torch.equal(hard.sum(dim=1), torch.ones(2, 9))
    (found,) = torch.autograd.grad((hard * weight).sum(), logits)
    (expected,) = torch.autograd.grad((logits.softmax(dim=1) * weight).sum(), logits)
    torch.testing.assert_close(found, expected)


def test_gumbel_noise_draws_groups_in_proportion_to_their_share() -> None:
    torch.manual_seed(0)
    block = GroupingBlock(PAPER, 6, 4, 2).train()
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0])[None, :, None].expand(1, 4, 40_000)
    drawn = block._harden(logits).mean(dim=2)[0]
    torch.testing.assert_close(drawn, logits[0, :, 0].softmax(dim=0), atol=0.01, rtol=0)


def test_a_query_serves_the_assignment_only_when_asked() -> None:
    torch.manual_seed(0)
    block = GroupingBlock(replace(SMALL, gumbel=False), 6, 4, 2).eval()
    patch, token = torch.randn(1, 2, 12), torch.randn(1, 6, 12)
    groups, assignment = block(patch, token)
    # Two patches leave two of four groups empty; such a group holds nothing of its query, only the biases pass.
    empty = (assignment.soft_BGN.argmax(dim=1)[..., None] == torch.arange(4)).sum(dim=1)[0] == 0
    assert empty.any()
    bias = block.proj.bias
    torch.testing.assert_close(
        groups[0, empty], (bias + block.mlp(block.norm_groups(bias))).expand(int(empty.sum()), -1)
    )


def test_cosine_similarity_is_bounded_by_its_scale() -> None:
    similarity = Similarity(SMALL)
    found = similarity(100 * torch.randn(1, 3, 12), 100 * torch.randn(1, 5, 12))
    assert found.abs().max() <= 10.0 + 1e-4


@pytest.mark.parametrize("config", [PAPER, SMALL])
def test_assignment_alone_equals_that_of_the_whole_encoder(config: ImageConfig) -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(config).eval()
    image = torch.randn(2, 3, 16, 16)
    alone, whole = encoder.assign(image), encoder(image)[1]
    assert torch.equal(alone.logits_BGN, whole.logits_BGN)
    assert torch.equal(encoder.similarity(alone.query_BGD, alone.key_BND), alone.logits_BGN)


def test_two_groupings_give_one_assignment_of_patches() -> None:
    torch.manual_seed(0)
    config = replace(PAPER, depths=(1, 0, 1), num_group_tokens=(6, 5), num_groups=(4, 2))
    groups, assignment, _ = ImageEncoder(config).eval()(torch.randn(2, 3, 16, 16))
    assert (groups.shape, assignment.soft_BGN.shape) == ((2, 2, 12), (2, 2, 16))
    assert assignment.inner is not None
    torch.testing.assert_close(assignment.soft_BGN.sum(dim=1), torch.ones(2, 16))
    by_hand = torch.einsum("bgm,bmn->bgn", assignment.logits_BGN.softmax(1), assignment.inner.logits_BGN.softmax(1))
    torch.testing.assert_close(assignment.soft_BGN, by_hand)
