"""Baselines on images whose answer can be told by hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from evaluation.baselines import BASELINES, baseline_labels, colour_clusters, largest_object, name_by_truth
from evaluation.config import Protocol
from evaluation.segment import Segmenter

CLASSES = ["background", "cat", "dog", "bus"]
WORDS = Protocol(background="words", background_words=("grass",))
AsBatch = Callable[[np.ndarray], Tensor]


def answer(segmenter: Segmenter, image_BCHW: Tensor, truth_HW: np.ndarray) -> dict[str, np.ndarray]:
    regions = segmenter.regions(image_BCHW, with_patches=True)[0]
    return baseline_labels(segmenter, regions, colour_clusters(image_BCHW)[0], truth_HW)


def test_every_baseline_answers_as_told(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    labels = answer(Segmenter(oracle_model, CLASSES, replace(WORDS, patch_share=0.5)), as_batch(scene), scene)
    assert list(labels) == list(BASELINES)
    assert (labels["background"] == 0).all()
    assert (labels["one_label"] == 1).all()
    for name in ("colour_clusters", "groups", "patches", "groups_oracle", "colour_clusters_oracle"):
        assert labels[name].tolist() == scene.tolist(), name


def test_true_names_correct_a_wrongly_naming_model(confused_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    segmenter = Segmenter(confused_model, CLASSES, WORDS)
    labels = answer(segmenter, as_batch(scene), scene)
    assert segmenter.segment(as_batch(scene)).numpy()[0, 10, 8] == 2
    assert labels["patches"][10, 8] == labels["colour_clusters"][10, 8] == 2
    assert labels["groups_oracle"].tolist() == labels["colour_clusters_oracle"].tolist() == scene.tolist()


def test_groups_alone_are_told_apart_from_a_model_that_names_patches_too(
    oracle_model: Any, scene: np.ndarray, as_batch: AsBatch
) -> None:
    dog_E = torch.eye(4)[2]
    oracle_model.patch_embedding = lambda image_BCHW: dog_E.expand(len(image_BCHW), 32 * 48, 4)
    both = Segmenter(oracle_model, CLASSES, replace(WORDS, patch_share=0.9))
    assert (both.segment(as_batch(scene)) == 2).all()
    assert answer(both, as_batch(scene), scene)["groups"].tolist() == scene.tolist()
    assert "groups" not in answer(Segmenter(oracle_model, CLASSES, WORDS), as_batch(scene), scene)


def test_without_background_there_is_no_such_baseline(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    labels = answer(Segmenter(oracle_model, ["grass", "cat", "dog", "bus"]), as_batch(scene), scene)
    assert "background" not in labels
    assert (labels["one_label"] == 0).all()


def test_clusters_of_an_image_do_not_depend_on_its_batch() -> None:
    image_BCHW = torch.randint(0, 256, (3, 3, 20, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    together_BHW = colour_clusters(image_BCHW)
    assert torch.equal(together_BHW[1:2], colour_clusters(image_BCHW[1:2]))
    assert torch.equal(together_BHW, colour_clusters(image_BCHW))
    assert together_BHW.unique().tolist() == list(range(8))


def test_each_pixel_is_in_the_cluster_of_the_nearest_mean_colour() -> None:
    noise = torch.randn(3, 16, 16, generator=torch.Generator().manual_seed(1))
    image_CHW = (torch.tensor([40.0, 120.0, 200.0]).repeat_interleave(6)[:16] + 3 * noise).clamp(0, 255).byte()
    cluster_HW = colour_clusters(image_CHW[None], num_clusters=3)[0]
    assert [cluster_HW[:, columns].unique().numel() for columns in (slice(6), slice(6, 12), slice(12, 16))] == [1] * 3
    assert cluster_HW.unique().numel() == 3


def test_one_colour_makes_clusters_without_failing() -> None:
    assert colour_clusters(torch.full((1, 3, 4, 4), 7, dtype=torch.uint8)).unique().numel() == 1


def test_the_largest_object_wins_over_more_background_and_void() -> None:
    truth_HW = np.array([[0, 0, 0, 0], [2, 2, 1, 255], [255, 255, 255, 255]], np.uint8)
    assert (largest_object(truth_HW, has_background=True) == 2).all()
    assert (largest_object(truth_HW, has_background=False) == 0).all()
    assert (largest_object(np.zeros((2, 2), np.uint8), has_background=True) == 0).all()


def test_regions_get_the_class_of_most_of_their_pixels() -> None:
    region_HW = np.array([[5, 5, 5, 9], [9, 9, 9, 2]])
    truth_HW = np.array([[1, 1, 2, 2], [2, 1, 255, 255]], np.uint8)
    assert name_by_truth(region_HW, truth_HW, 3).tolist() == [[1, 1, 1, 2], [2, 2, 2, 0]]


def test_only_oracles_look_at_the_truth(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    segmenter = Segmenter(oracle_model, CLASSES, WORDS)
    told, misled = (answer(segmenter, as_batch(scene), truth_HW) for truth_HW in (scene, 3 - scene))
    differing = {name for name in told if not np.array_equal(told[name], misled[name])}
    assert differing == {name for name, baseline in BASELINES.items() if baseline.is_oracle}
