"""Masked entity completion: the groups of an image fill in what a masked caption leaves out.

Shape letters: B pairs, L tokens, G groups, D width.
"""

from __future__ import annotations

from torch import Tensor, nn

from model.vit import Block, CrossBlock, token_at


class EntityCompletion(nn.Module):
    """A masked caption looks at the groups of its image; the token that stands for it then tells what is missing.

    Works in the narrower of the two widths. Padding is never looked at.
    Source: paper section 3.2; NOTES 4.
    """

    def __init__(self, image_width: int, text_width: int, num_heads: int) -> None:
        super().__init__()
        self.width = width = min(image_width, text_width)
        if width % num_heads:
            raise ValueError(f"completion_heads = {num_heads}: must divide {width}, the narrower encoder's width")
        self.align_image = nn.Linear(image_width, width) if image_width > width else nn.Identity()
        self.align_text = nn.Linear(text_width, width) if text_width > width else nn.Identity()
        self.norm_text = nn.LayerNorm(width)
        self.norm_image = nn.LayerNorm(width)
        self.cross = CrossBlock(width, num_heads)
        self.block = Block(width, num_heads)
        self.norm = nn.LayerNorm(width)

    def forward(self, token_BLD: Tensor, summary_B: Tensor, mask_BL: Tensor | None, group_BGD: Tensor) -> Tensor:
        """Return the feature of the missing entities.

        Shapes: token_BLD [B, L, Dt], summary_B [B] position of the token that stands for its caption,
        mask_BL [B, L] 1 for a token (None looks at padding, too), group_BGD [B, G, Di] -> [B, D].
        """
        seen = self._look(token_BLD, group_BGD)
        answer: Tensor = self.norm(self.block.at(seen, summary_B, mask_BL) + token_at(seen, summary_B))
        return answer[:, 0]

    def tokens(self, token_BLD: Tensor, mask_BL: Tensor, group_BGD: Tensor) -> Tensor:
        """Return the feature of every token, as `forward` gives that of one. Shapes: [B, L, Dt] -> [B, L, D]."""
        seen = self._look(token_BLD, group_BGD)
        told: Tensor = self.norm(self.block(seen, mask_BL) + seen)
        return told

    def _look(self, token_BLD: Tensor, group_BGD: Tensor) -> Tensor:
        text = self.norm_text(self.align_text(token_BLD))
        seen: Tensor = self.cross(text, self.norm_image(self.align_image(group_BGD)))
        return seen
