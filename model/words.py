"""Masked language modelling: which token stood where one was masked.

Shape letters: M masked tokens of a batch, D width, V word pieces.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class WordPrediction(nn.Module):
    """Scores of all word pieces; they share their vectors with the text encoder's table, as in BERT.

    Source: the rows "masked language modelling" of the paper's ablation. Their layers are not stated: these are BERT's,
    and where a word may be told from the image too, those of masked entity completion come before them.
    """

    def __init__(self, width: int, text_width: int, num_pieces: int) -> None:
        super().__init__()
        self.dense = nn.Linear(width, text_width)
        self.norm = nn.LayerNorm(text_width)
        self.bias = nn.Parameter(torch.zeros(num_pieces))

    def forward(self, token_MD: Tensor, piece_VD: Tensor) -> Tensor:
        """Shapes: token_MD [M, width], piece_VD [V, text_width] -> [M, V]."""
        return F.linear(self.norm(F.gelu(self.dense(token_MD))), piece_VD, self.bias)
