"""The parts of a vision transformer: stems, position table, attention and blocks.

Shape letters: B images, C colours, H height, W width, N tokens (patches), M tokens that are looked at, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from model.config import ImageConfig
from model.projector import SharedBatchNorm


class Stem(nn.Module):
    """The first features of an image, one per patch, in reading order."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.patch_size = config.patch_size
        self.keeps_remainder = True
        project = _convolutions(config) if config.stem == "conv" else _patches(config)
        self.project = project.to(memory_format=torch.channels_last)  # the fastest order, and that of patches
        self.norm = nn.LayerNorm(config.width) if config.stem_norm == "layer" else nn.Identity()

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Return rows and columns of the patches of an image: those at the ends may be begun ones."""
        sides = (height, width) if self.keeps_remainder else (height + 1 - self.patch_size, width + 1 - self.patch_size)
        rows, columns = (-(-side // self.patch_size) for side in sides)
        return rows, columns

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return patch features and the grid (rows, columns) that they form.

        An image whose sides are no multiples of the patch size is continued by its last row and column.
        Shapes: image_BCHW [B, 3, H, W] -> [B, N, D] with N = rows x columns, rows = ceil(H / patch size).
        """
        bottom, right = (-side % self.patch_size for side in image_BCHW.shape[-2:])
        if self.keeps_remainder and (bottom or right):
            image_BCHW = F.pad(image_BCHW, (0, right, 0, bottom), mode="replicate")
        features: Tensor = self.project(image_BCHW.contiguous(memory_format=torch.channels_last))
        patch_BND: Tensor = self.norm(features.flatten(2).transpose(1, 2))
        return patch_BND, (features.shape[2], features.shape[3])


def _patches(config: ImageConfig) -> nn.Module:
    return nn.Conv2d(3, config.width, kernel_size=config.patch_size, stride=config.patch_size)


def _convolutions(config: ImageConfig) -> nn.Module:
    """Return one 3x3 convolution of stride 2 per halving, doubling the width, and `stem_layers` of stride 1.

    A linear layer per patch ends the stem.
    """
    halvings = config.patch_size.bit_length() - 1
    widths = [3, *(config.width >> (halvings - 1 - step) for step in range(halvings))]
    widths += [config.width] * config.stem_layers
    layers: list[nn.Module] = []
    for step, (width, wider) in enumerate(pairwise(widths)):
        stride = 2 if step < halvings else 1
        layers += [nn.Conv2d(width, wider, kernel_size=3, stride=stride, padding=1)]
        layers += [SharedBatchNorm(wider)] if config.stem_norm == "batch" else []
        layers += [nn.GELU()]
    return nn.Sequential(*layers, nn.Conv2d(config.width, config.width, kernel_size=1))


class Positions(nn.Module):
    """A learned table of positions, stretched to the grid at hand."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.side = config.image_size // config.patch_size
        self.table = nn.Parameter(torch.zeros(1, self.side**2, config.width))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, grid: tuple[int, int]) -> Tensor:
        """Shapes: -> [1, rows x columns, D]."""
        if grid == (self.side, self.side):
            return self.table
        table = self.table.transpose(1, 2).reshape(1, -1, self.side, self.side)
        return F.interpolate(table, size=grid, mode="bicubic", align_corners=False).flatten(2).transpose(1, 2)


class DropPath(nn.Module):
    """Drops the residual branch of whole samples in training and scales the others up."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """Shapes: [B, N, D] -> [B, N, D]."""
        if self.rate == 0 or not self.training:
            return x
        keep = torch.rand(len(x), 1, 1, device=x.device) >= self.rate
        return x * keep / (1 - self.rate)


class MLP(nn.Sequential):
    """Two linear layers with a GELU between."""

    def __init__(self, width: int, hidden: int, out: int | None = None) -> None:
        super().__init__(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, out or width))


class TokenMixer(MLP):
    """An MLP over the tokens, each channel by itself: from one number of tokens to another."""

    def forward(self, token_BND: Tensor) -> Tensor:
        """Shapes: [B, N, D] -> [B, M, D]."""
        mixed_BDN = token_BND.transpose(1, 2)
        for layer in self:
            mixed_BDN = layer(mixed_BDN)
        return mixed_BDN.transpose(1, 2)


class Attention(nn.Module):
    """Multi-head attention of tokens over themselves."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Shapes: x_BND [B, N, D], mask_BN [B, N] true where a token may be looked at -> [B, N, D]."""
        q, k, v = (_split(part, self.num_heads) for part in self.qkv(x_BND).chunk(3, dim=-1))
        return self.proj(_merge(_attend(q, k, v, mask_BN)))  # type: ignore[no-any-return]

    def at(self, x_BND: Tensor, position_B: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return what `forward` gives for one token of each sample, at the cost of one query.

        Shapes: x_BND [B, N, D], position_B [B] -> [B, 1, D].
        """
        (q_weight, kv_weight), (q_bias, kv_bias) = (
            torch.split(part, [len(part) // 3, len(part) * 2 // 3]) for part in (self.qkv.weight, self.qkv.bias)
        )
        q = _split(F.linear(token_at(x_BND, position_B), q_weight, q_bias), self.num_heads)
        k, v = (_split(part, self.num_heads) for part in F.linear(x_BND, kv_weight, kv_bias).chunk(2, dim=-1))
        return self.proj(_merge(_attend(q, k, v, mask_BN)))  # type: ignore[no-any-return]


class CrossAttention(nn.Module):
    """Multi-head attention of tokens over other tokens.

    Keys have no bias: it would move all logits of a query alike.
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.v_proj, self.proj = (nn.Linear(width, width) for _ in range(3))
        self.k_proj = nn.Linear(width, width, bias=False)

    def forward(self, x_BND: Tensor, other_BMD: Tensor) -> Tensor:
        """Shapes: x_BND [B, N, D], other_BMD [B, M, D] -> [B, N, D]."""
        num_queries = x_BND.shape[1]
        if num_queries < other_BMD.shape[1] and num_queries * self.num_heads < x_BND.shape[2]:
            return self.proj(self._few_queries(x_BND, other_BMD))  # type: ignore[no-any-return]
        q = _split(self.q_proj(x_BND), self.num_heads)
        k, v = (_split(proj(other_BMD), self.num_heads) for proj in (self.k_proj, self.v_proj))
        return self.proj(_merge(_attend(q, k, v)))  # type: ignore[no-any-return]

    def _few_queries(self, x_BND: Tensor, other_BMD: Tensor) -> Tensor:
        """Return the same with the projections of keys and values moved over to the queries and the result.

        All being linear, q (W k) = (q W) k, and the mean of W v is W times the mean: no M x D x D product is left.
        Letters: h head, d channel of a head, n query, c channel.
        """
        k_weight, v_weight = (_by_head(proj.weight, self.num_heads) for proj in (self.k_proj, self.v_proj))
        q = torch.einsum("bhnd,hdc->bhnc", _split(self.q_proj(x_BND), self.num_heads), k_weight)
        other = other_BMD[:, None]
        scale = k_weight.shape[1] ** -0.5
        mean = F.scaled_dot_product_attention(q.flatten(1, 2)[:, None], other, other, scale=scale)
        return torch.einsum("bhnc,hdc->bnhd", mean.reshape(q.shape), v_weight).flatten(2) + self.v_proj.bias


def _split(x_BND: Tensor, num_heads: int) -> Tensor:
    return x_BND.reshape(*x_BND.shape[:2], num_heads, -1).transpose(1, 2)


def _by_head(weight: Tensor, num_heads: int) -> Tensor:
    return weight.reshape(num_heads, -1, weight.shape[1])


def _merge(heads: Tensor) -> Tensor:
    return heads.transpose(1, 2).flatten(2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask_BN: Tensor | None = None) -> Tensor:
    mask = None if mask_BN is None else mask_BN[:, None, None].bool()
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, width: int, num_heads: int, drop_path: float = 0.0) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = Attention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x_BND: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Shapes: [B, N, D] -> [B, N, D]."""
        x_BND = x_BND + self.drop_path(self.attn(self.norm1(x_BND), mask_BN))
        out: Tensor = x_BND + self.drop_path(self.mlp(self.norm2(x_BND)))
        return out

    def at(self, x_BND: Tensor, position_B: Tensor, mask_BN: Tensor | None = None) -> Tensor:
        """Return what `forward` gives for one token of each sample, without the others' share of the work.

        Shapes: [B, N, D], position_B [B] -> [B, 1, D].
        """
        seen_B1D = self.drop_path(self.attn.at(self.norm1(x_BND), position_B, mask_BN))
        x_B1D = token_at(x_BND, position_B) + seen_B1D
        out: Tensor = x_B1D + self.drop_path(self.mlp(self.norm2(x_B1D)))
        return out


class CrossBlock(nn.Module):
    """Tokens look at other tokens, then pass an MLP and a last norm; the caller normalises what goes in."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.attn = CrossAttention(width, num_heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)
        self.norm_post = nn.LayerNorm(width)

    def forward(self, x_BND: Tensor, other_BMD: Tensor) -> Tensor:
        """Shapes: x_BND [B, N, D], other_BMD [B, M, D] -> [B, N, D]."""
        x_BND = x_BND + self.attn(x_BND, other_BMD)
        out: Tensor = self.norm_post(x_BND + self.mlp(self.norm2(x_BND)))
        return out


def token_at(x_BND: Tensor, position_B: Tensor) -> Tensor:
    """Return one token of each sample. Shapes: [B, N, D], [B] -> [B, 1, D]."""
    return x_BND.gather(1, position_B[:, None, None].expand(-1, 1, x_BND.shape[2]))


def run_blocks(blocks: Sequence[nn.Module] | nn.ModuleList, x_BND: Tensor, recompute: bool = False) -> Tensor:
    """Return the tokens after all blocks; no blocks, no change.

    With `recompute` a block's activations are not kept for the backward pass but computed again in it.
    """
    recompute = recompute and torch.is_grad_enabled()
    for block in blocks:
        x_BND = checkpoint(block, x_BND, use_reentrant=False) if recompute else block(x_BND)
    return x_BND
