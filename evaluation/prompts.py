"""Embeddings of names: each name in every template, averaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from evaluation.templates import sentences
from model import OVSegmentor

PROMPTS_PER_PASS = 512


def check_names(names: Sequence[str]) -> None:
    """Raise ValueError when names of classes are missing, empty or given twice."""
    if not names:
        raise ValueError("no class to look for: give at least one name")
    if blank := [position for position, name in enumerate(names) if not name.strip()]:
        raise ValueError(f"class names at positions {blank} are empty: remove them")
    if twice := [name for name, count in Counter(name.strip() for name in names).items() if count > 1]:
        raise ValueError(f"class names given twice: {', '.join(twice)}; a pixel can only have one of them")


@torch.inference_mode()
def embed_names(model: OVSegmentor, names: Sequence[str], templates: str | Sequence[str]) -> Tensor:
    """Return one unit vector per name: the direction of the mean of its prompts' embeddings.

    `templates` are sentences, or the name of a set of them. Embeddings are averaged as the model gives them, before
    normalisation, as published (reference: NOTES.md 9.1). The model is put into eval mode. Shapes: [N, E].
    """
    model.eval()
    around = sentences(templates)
    prompts = [template.format(name) for name in names for template in around]
    embedding_PE = torch.cat(
        [
            model.encode_text(model.tokenize(prompts[start : start + PROMPTS_PER_PASS])).embedding_BE
            for start in range(0, len(prompts), PROMPTS_PER_PASS)
        ]
    )
    return normalize(embedding_PE.view(len(names), len(around), -1).mean(1), dim=-1)
