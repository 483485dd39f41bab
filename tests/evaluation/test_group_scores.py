"""Scores of an image's groups: sizes and probabilities that can be told by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from evaluation.config import Protocol
from evaluation.group_scores import group_scores
from evaluation.segment import Segmenter


def test_groups_come_by_size_with_the_probability_of_each_class(
    oracle_model: Any, scene: np.ndarray, as_batch: Callable[[np.ndarray], Any]
) -> None:
    protocol = Protocol(background="words", background_words=("grass",))
    segmenter = Segmenter(oracle_model, ["background", "cat", "dog", "bus"], protocol)
    (regions,) = segmenter.regions(as_batch(scene))
    scores = group_scores(segmenter, regions, protocol)
    # The largest is the grass, then the cat (8 x 12), then the bus (8 x 8); of the dog there is no group.
    assert scores.group_HW.tolist() == np.array([0, 1, 9, 2])[scene].tolist()
    assert scores.share_G == pytest.approx(np.array([1536 - 160, 96, 64]) / 1536)
    # Cosines are 0 or 1 at a scale of 100: each is named surely, and the grass is none of cat, dog and bus.
    assert scores.score_GC == pytest.approx(np.array([[0, 0, 0], [1, 0, 0], [0, 0, 1]]))


def test_without_background_words_the_probabilities_of_a_group_sum_to_one(
    patchy_model: Any, scene: np.ndarray, as_batch: Callable[[np.ndarray], Any]
) -> None:
    protocol = Protocol(window=16, stride=16)
    segmenter = Segmenter(patchy_model, ["background", "cat", "dog", "bus"], protocol)
    (regions,) = segmenter.regions(as_batch(scene))
    scores = group_scores(segmenter, regions, protocol)
    # Windows of 16 x 16 have groups of their own: 6 of grass, and the cat and the bus lie in one each.
    assert len(scores.share_G) == 8
    assert scores.score_GC.sum(1) == pytest.approx(np.ones(8))
    assert scores.score_GC[scores.group_HW[10, 10]] == pytest.approx([1, 0, 0])
    # No word fits the grass, so all are equally likely.
    assert scores.score_GC[scores.group_HW[0, 0]] == pytest.approx(np.full(3, 1 / 3))
