"""Binding patches into groups, and the image encoder made of stem, blocks and grouping.

Shape letters: B images, N patches (or groups of the stage before), T group tokens, G groups, D width.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ImageConfig
from model.vit import MLP, Block, CrossBlock, Positions, Stem, TokenMixer, run_blocks


@dataclass(frozen=True)
class Assignment:
    """Which patch belongs to which group."""

    logits_BGN: Tensor
    """similarity of each group's query and each patch's key"""
    query_BGD: Tensor
    """queries of the groups, projected"""
    key_BND: Tensor
    """keys of the patches, projected"""
    inner: Assignment | None = None
    """the assignment of the stage before, where this one groups groups"""

    @property
    def soft_BGN(self) -> Tensor:  # noqa: N802
        """Share of each patch that falls to each group: sums to one over the groups, free of noise."""
        soft = self.logits_BGN.softmax(dim=1)
        return soft if self.inner is None else soft @ self.inner.soft_BGN


class Similarity(nn.Module):
    """How well queries and keys agree: scaled dot product, or cosine times a learned scale."""

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.scale = 1 / math.sqrt(config.width)
        self.log_scale = nn.Parameter(torch.tensor(math.log(10.0))) if config.similarity == "cosine" else None

    def forward(self, query_BGD: Tensor, key_BND: Tensor) -> Tensor:
        """Shapes: query_BGD [B, G, D], key_BND [B, N, D] -> [B, G, N]."""
        if self.log_scale is None:
            return (query_BGD * self.scale) @ key_BND.transpose(1, 2)
        query_BGD = F.normalize(query_BGD, dim=-1) * self.log_scale.exp().clamp(max=50.0)
        # The keys are normalised after the product, where there are G and not D numbers for each.
        length_BN = key_BND.square().sum(dim=-1).clamp(min=1e-12).sqrt()
        cosine: Tensor = query_BGD @ key_BND.transpose(1, 2) / length_BN[:, None]
        return cosine


def gumbel_noise(logits: Tensor) -> Tensor:
    """Return standard Gumbel noise of the shape of `logits`."""
    return -torch.empty_like(logits).exponential_().log()


class GroupingBlock(nn.Module):
    """Turns group tokens into queries, gives each patch to one query, and averages the patches of each group."""

    def __init__(self, config: ImageConfig, num_tokens: int, num_groups: int, num_heads: int) -> None:
        super().__init__()
        width = config.width
        self.gumbel, self.eps = config.gumbel, config.assign_eps
        self.noise: Callable[[Tensor], Tensor] = gumbel_noise
        self.adds_query = config.query == "residual"
        self.norm_tokens = nn.LayerNorm(width)
        self.mix_tokens = TokenMixer(num_tokens, width // 2, num_groups)
        self.norm_queries = nn.LayerNorm(width)
        self.norm_patches = nn.LayerNorm(width)
        self.cross = CrossBlock(width, num_heads)
        self.q_proj, self.k_proj, self.v_proj, self.proj = (nn.Linear(width, width) for _ in range(4))
        self.similarity = Similarity(config)
        self.norm_groups = nn.LayerNorm(width)
        self.mlp = MLP(width, 4 * width)

    def assign(self, patch_BND: Tensor, token_BTD: Tensor) -> tuple[Tensor, Tensor, Assignment]:
        """Return the normalised patches, the groups' queries before their projection, and the assignment."""
        patch_BND = self.norm_patches(patch_BND)
        mixed = self.norm_queries(self.mix_tokens(self.norm_tokens(token_BTD)))
        query_BGD = self.cross(mixed, patch_BND)
        q, k = self.q_proj(query_BGD), self.k_proj(patch_BND)
        return patch_BND, query_BGD, Assignment(self.similarity(q, k), q, k)

    def forward(self, patch_BND: Tensor, token_BTD: Tensor) -> tuple[Tensor, Assignment]:
        """Return the groups and how patches were assigned.

        The value projection is linear, so it is applied to the mean of a group and not to each patch.
        Shapes: patch_BND [B, N, D], token_BTD [B, T, D] -> [B, G, D].
        """
        patch_BND, query_BGD, assignment = self.assign(patch_BND, token_BTD)
        hard_BGN = self._harden(assignment.logits_BGN)
        size_BG1 = hard_BGN.sum(dim=2, keepdim=True, dtype=torch.promote_types(hard_BGN.dtype, torch.float32))
        share_BG1 = size_BG1 / (size_BG1 + self.eps)
        mean_BGD = (hard_BGN @ patch_BND) / (size_BG1 + self.eps)
        value_BGD = F.linear(mean_BGD, self.v_proj.weight) + share_BG1 * self.v_proj.bias
        return self._finish(self.proj(value_BGD), query_BGD), assignment

    def singly(self, patch_BND: Tensor, token_BTD: Tensor) -> Tensor:
        """Return each patch as if it alone were its group's mean, with the query of the group it falls to.

        Shapes: patch_BND [B, N, D], token_BTD [B, T, D] -> [B, N, D].
        """
        patch_BND, query_BGD, assignment = self.assign(patch_BND, token_BTD)
        query_BND = query_BGD.gather(1, assignment.logits_BGN.argmax(dim=1)[..., None].expand(patch_BND.shape))
        return self._finish(self.proj(self.v_proj(patch_BND)), query_BND)

    def _finish(self, value: Tensor, query: Tensor) -> Tensor:
        group = value + query if self.adds_query else value
        finished: Tensor = group + self.mlp(self.norm_groups(group))
        return finished

    def _harden(self, logits_BGN: Tensor) -> Tensor:
        """Return one group per patch as zeros and ones, with the gradient of the softmax (straight through)."""
        if self.training and self.gumbel:
            logits_BGN = logits_BGN + self.noise(logits_BGN)
        hard = torch.zeros_like(logits_BGN).scatter_(1, logits_BGN.argmax(dim=1, keepdim=True), 1.0)
        if not (torch.is_grad_enabled() and logits_BGN.requires_grad):
            return hard
        soft = logits_BGN.softmax(dim=1)
        return hard + (soft - soft.detach())


class EncoderStage(nn.Module):
    """Transformer blocks over features and group tokens together, then grouping.

    The group tokens of a later stage are learned ones plus a mix of those of the stage before (GroupViT section 3.2).
    """

    def __init__(self, config: ImageConfig, index: int, drop_paths: list[float]) -> None:
        super().__init__()
        num_heads = config.stage_heads[index]
        self.blocks = nn.ModuleList(Block(config.width, num_heads, rate) for rate in drop_paths)
        self.recompute = False
        self.grouping: GroupingBlock | None = None
        if index < len(config.num_groups):
            num_tokens = config.num_group_tokens[index]
            self.token = nn.Parameter(torch.empty(1, num_tokens, config.width))
            # Without blocks the tokens go straight into a norm: at 0.02 one step of Adam would turn them by a tenth.
            nn.init.trunc_normal_(self.token, std=0.02 if len(self.blocks) else 1.0)
            if index > 0:
                mixer = TokenMixer(config.num_group_tokens[index - 1], config.width // 2, num_tokens)
                self.hand_over = nn.Sequential(nn.LayerNorm(config.width), mixer)
            self.grouping = GroupingBlock(config, num_tokens, config.num_groups[index], num_heads)

    def features(self, x_BND: Tensor) -> Tensor:
        """Return the features after the blocks of a stage that does not group. Shapes: [B, N, D] -> [B, N, D]."""
        return run_blocks(self.blocks, x_BND, self.recompute)

    def tokens(self, x_BND: Tensor, previous_BSD: Tensor | None) -> tuple[Tensor, Tensor]:
        """Return features and group tokens after the blocks.

        Shapes: x_BND [B, N, D], previous_BSD [B, S, D] of the stage before -> [B, N, D], [B, T, D].
        """
        token_BTD = self.token.expand(len(x_BND), -1, -1)
        if previous_BSD is not None:
            token_BTD = token_BTD + self.hand_over(previous_BSD)
        if not len(self.blocks):
            return x_BND, token_BTD
        mixed = run_blocks(self.blocks, torch.cat([x_BND, token_BTD], dim=1), self.recompute)
        return mixed[:, : x_BND.shape[1]], mixed[:, x_BND.shape[1] :]


class ImageEncoder(nn.Module):
    """Stem, positions, encoder stages and a last norm.

    Source: paper section 3.1; GroupViT (arXiv 2202.11094) section 3.
    """

    def __init__(self, config: ImageConfig) -> None:
        super().__init__()
        self.stem = Stem(config)
        self.positions = Positions(config)
        rates = [rate.item() for rate in torch.linspace(0, config.drop_path, max(1, sum(config.depths)))]
        starts = [sum(config.depths[:index]) for index in range(len(config.depths))]
        self.stages = nn.ModuleList(
            EncoderStage(config, index, rates[start : start + config.depths[index]])
            for index, start in enumerate(starts)
        )
        self.norm = nn.LayerNorm(config.width)

    def embed(self, image_BCHW: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Return patch features with their positions, and the grid (rows, columns) that they form."""
        patch_BND, grid = self.stem(image_BCHW)
        return patch_BND + self.positions(grid), grid

    def forward(self, image_BCHW: Tensor) -> tuple[Tensor, Assignment, tuple[int, int]]:
        """Return the groups, the assignment of patches to them, and the grid of the patches.

        Shapes: image_BCHW [B, 3, H, W] -> [B, G, D].
        """
        x, grid = self.embed(image_BCHW)
        whole: Assignment | None = None
        token: Tensor | None = None
        for stage in self.stages:
            assert isinstance(stage, EncoderStage)
            if stage.grouping is None:
                x = stage.features(x)
            else:
                x, token = stage.tokens(x, token)
                x, assignment = stage.grouping(x, token)
                whole = replace(assignment, inner=whole)
        assert whole is not None
        return self.norm(x), whole, grid

    def assign(self, image_BCHW: Tensor) -> Assignment:
        """Return the first grouping's assignment alone; nothing after it is computed."""
        first = self.stages[0]
        assert isinstance(first, EncoderStage)
        assert first.grouping is not None
        return first.grouping.assign(*first.tokens(self.embed(image_BCHW)[0], None))[2]

    def similarity(self, query_BGD: Tensor, key_BND: Tensor) -> Tensor:
        """Return how the first grouping compares queries and keys. Shapes: [B, G, D], [B, N, D] -> [B, G, N]."""
        first = self.stages[0]
        assert isinstance(first, EncoderStage)
        assert first.grouping is not None
        result: Tensor = first.grouping.similarity(query_BGD, key_BND)
        return result

    def patches(self, image_BCHW: Tensor) -> Tensor:
        """Return each patch passed on as a group of its own (of the first grouping). Shapes: -> [B, N, D]."""
        x, _ = self.embed(image_BCHW)
        token: Tensor | None = None
        for stage in self.stages:
            assert isinstance(stage, EncoderStage)
            if stage.grouping is None:
                x = stage.features(x)
            else:
                x, token = stage.tokens(x, token)
                x = stage.grouping.singly(x, token)
        normed: Tensor = self.norm(x)
        return normed
