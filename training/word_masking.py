"""Masked language modelling: which tokens of a caption are masked, and what takes their place.

Shape letters: B captions, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import Tokens

RATE = 0.15
"""share of a caption's tokens that are to be told, at least one"""
MASKED, REPLACED = 0.8, 0.1
"""of them: share that becomes the mask token, share that becomes any other; the rest stays as it is"""
NOT_TOLD = -100
"""target of the other tokens; cross entropy leaves it out"""


@dataclass(frozen=True)
class WordMasking:
    """Masks the tokens of one tokenizer."""

    mask: int
    """id of the mask token"""
    special: tuple[int, ...]
    """ids that are never masked"""
    num_pieces: int
    """word pieces, of which any may take a token's place"""

    @classmethod
    def of(cls, tokenizer: Any) -> WordMasking:
        """Return the masking of a tokenizer.

        Raises: ValueError when it has no mask token.
        """
        if tokenizer.mask_token_id is None:
            raise ValueError(
                "loss.words > 0: the text encoder's tokenizer has no mask token (CLIP's have none); use one of BERT's "
                "or RoBERTa's kin, or loss.words = 0"
            )
        return cls(tokenizer.mask_token_id, tuple(tokenizer.all_special_ids), len(tokenizer))

    def __call__(self, tokens: Tokens, seeds: Sequence[int]) -> tuple[Tokens, Tensor]:
        """Return the captions with some tokens masked, and the tokens that stood there.

        A caption's draw depends on its own seed and tokens only, not on how far it is padded.
        Shapes: tokens [B, L], a seed per caption -> tokens [B, L], target_BL int64 [B, L], NOT_TOLD elsewhere.
        Source: BERT (arXiv 1810.04805) section 3.1.
        """
        tokens = tokens.to("cpu")
        ids_BL = tokens.input_ids_BL.numpy().copy()
        target_BL = np.full_like(ids_BL, NOT_TOLD)
        is_word_BL = (tokens.attention_mask_BL.numpy() > 0) & ~np.isin(ids_BL, self.special)
        for ids_L, target_L, is_word_L, seed in zip(ids_BL, target_BL, is_word_BL, seeds, strict=True):
            generator = np.random.default_rng(seed)
            words = np.flatnonzero(is_word_L)
            told = generator.permutation(words)[: max(1, round(RATE * len(words)))]
            target_L[told] = ids_L[told]
            fate, other = generator.random(len(told)), generator.integers(self.num_pieces, size=len(told))
            ids_L[told] = np.where(fate < MASKED, self.mask, np.where(fate < MASKED + REPLACED, other, ids_L[told]))
        return Tokens(torch.from_numpy(ids_BL), tokens.attention_mask_BL), torch.from_numpy(target_BL)
