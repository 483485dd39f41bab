from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from model.config import ImageConfig
from model.vit import Attention, Block, CrossAttention, DropPath, Positions, Stem

CONV = ImageConfig(image_size=32, stem="conv", patch_size=4, width=8, num_heads=2)


def plain_attention(q: Tensor, k: Tensor, v: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    """Attention with loops over samples, heads and queries."""
    out = torch.zeros(q.shape)
    size = q.shape[-1] // num_heads
    for b in range(len(q)):
        for head in range(num_heads):
            part = slice(head * size, (head + 1) * size)
            for n in range(q.shape[1]):
                logits = (k[b, :, part] @ q[b, n, part]) / math.sqrt(size)
                if mask is not None:
                    logits[mask[b] == 0] = -math.inf
                out[b, n, part] = logits.softmax(dim=0) @ v[b, :, part]
    return out


def test_attention_equals_its_plain_version_and_ignores_what_is_masked() -> None:
    torch.manual_seed(0)
    attention, x = Attention(8, 2), torch.randn(2, 5, 8)
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    plain = attention.proj(plain_attention(q, k, v, 2, mask))
    torch.testing.assert_close(attention(x, mask), plain)


@pytest.mark.parametrize(("num_queries", "num_others"), [(3, 6), (5, 4), (6, 7)])
def test_cross_attention_equals_its_plain_version(num_queries: int, num_others: int) -> None:
    """Of few queries (the first case) and of many, in value and gradient."""
    torch.manual_seed(0)
    attention = CrossAttention(8, 2)
    x, other = torch.randn(2, num_queries, 8, requires_grad=True), torch.randn(2, num_others, 8, requires_grad=True)
    q, k, v = attention.q_proj(x), attention.k_proj(other), attention.v_proj(other)
    fast, plain = attention(x, other), attention.proj(plain_attention(q, k, v, 2))
    torch.testing.assert_close(fast, plain)
    inputs, weight = [x, other, *attention.parameters()], torch.randn(fast.shape)
    for a, b in zip(*(torch.autograd.grad((y * weight).sum(), inputs) for y in (fast, plain)), strict=True):
        torch.testing.assert_close(a, b)


def test_the_first_token_alone_equals_the_first_of_all() -> None:
    torch.manual_seed(0)
    block, x, mask = Block(8, 2), torch.randn(2, 5, 8), torch.tensor([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    position = torch.arange(len(x)) % 2
    torch.testing.assert_close(block.at(x, position, mask)[:, 0], block(x, mask)[torch.arange(len(x)), position])


def test_patches_come_in_reading_order() -> None:
    stem = Stem(ImageConfig(image_size=8, patch_size=4, width=2, num_heads=1))
    convolution = stem.project
    assert isinstance(convolution, nn.Conv2d)
    nn.init.constant_(convolution.weight, 1 / (3 * 16))
    assert convolution.bias is not None
    nn.init.zeros_(convolution.bias)
    image = torch.tensor([[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]).repeat_interleave(4, 0).repeat_interleave(4, 1)
    features, grid = stem(image.expand(1, 3, 8, 12))
    assert grid == (2, 3)
    torch.testing.assert_close(features[0, :, 0], torch.arange(6.0))


def test_the_convolutional_stem_sees_fifteen_pixels() -> None:
    stem = Stem(CONV)
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    features, grid = stem(image)
    row, column = 8, 8
    features[0, row * grid[1] + column].sum().backward()
    assert image.grad is not None
    seen = image.grad.abs().sum(dim=(0, 1)) > 0
    assert (int(seen.any(0).sum()), int(seen.any(1).sum())) == (15, 15)


@pytest.mark.parametrize(("layers", "pixels"), [(1, 15), (2, 23), (3, 31)])
def test_each_further_layer_of_the_stem_sees_two_patches_more(layers: int, pixels: int) -> None:
    stem = Stem(replace(CONV, stem_layers=layers, stem_norm="batch")).eval()
    image = torch.randn(1, 3, 64, 64, requires_grad=True)
    stem(image)[0][0, 8 * 16 + 8].sum().backward()
    assert image.grad is not None
    seen = image.grad.abs().sum(dim=(0, 1)) > 0
    assert (int(seen.any(0).sum()), int(seen.any(1).sum())) == (pixels, pixels)


@pytest.mark.parametrize("config", [CONV, replace(CONV, stem="patch")])
@pytest.mark.parametrize(("height", "width", "grid"), [(32, 32, (8, 8)), (33, 30, (9, 8)), (4, 5, (1, 2))])
def test_any_size_gives_a_grid_that_covers_the_image(
    config: ImageConfig, height: int, width: int, grid: tuple[int, int]
) -> None:
    features, found = Stem(config)(torch.randn(2, 3, height, width))
    assert found == grid
    assert features.shape == (2, grid[0] * grid[1], 8)


def test_positions_are_the_table_itself_at_its_own_size_and_keep_a_constant_at_others() -> None:
    positions = Positions(CONV)
    assert positions((8, 8)) is positions.table
    nn.init.constant_(positions.table, 0.3)
    torch.testing.assert_close(positions((5, 11)), torch.full((1, 55, 8), 0.3))


def test_drop_path_keeps_the_mean_and_drops_whole_samples() -> None:
    torch.manual_seed(0)
    drop = DropPath(0.25)
    out = drop(torch.ones(4000, 2, 2))
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    assert torch.equal(out.amin(dim=(1, 2)), out.amax(dim=(1, 2)))
    assert torch.equal(drop.eval()(torch.ones(2, 2, 2)), torch.ones(2, 2, 2))
