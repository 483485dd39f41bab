"""Embeddings of names."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from evaluation import prompts
from evaluation.prompts import embed_names

TABLE = {"a cat": [3.0, 0.0], "the cat": [0.0, 1.0], "a dog": [0.0, 2.0], "the dog": [0.0, 5.0]}


class Reader:
    """Knows four sentences and their embeddings."""

    batches: list[int]

    def __init__(self) -> None:
        self.batches = []

    def eval(self) -> None:
        """Nothing to switch."""

    def tokenize(self, texts: list[str]) -> list[str]:
        return texts

    def encode_text(self, texts: list[str]) -> SimpleNamespace:
        self.batches.append(len(texts))
        return SimpleNamespace(embedding_BE=torch.tensor([TABLE[text] for text in texts]))


def test_templates_are_averaged_before_normalisation() -> None:
    reader: Any = Reader()
    embedding_NE = embed_names(reader, ["cat", "dog"], ["a {}", "the {}"])
    # cat: mean of (3, 0) and (0, 1) is (1.5, 0.5), of length sqrt(2.5).
    assert embedding_NE[0].tolist() == pytest.approx([1.5 / 2.5**0.5, 0.5 / 2.5**0.5])
    assert embedding_NE[1].tolist() == [0, 1]


def test_many_prompts_go_in_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prompts, "PROMPTS_PER_PASS", 3)
    reader: Any = Reader()
    whole_NE = embed_names(reader, ["cat", "dog"], ["a {}", "the {}"])
    assert reader.batches == [3, 1]
    assert whole_NE.shape == (2, 2)
