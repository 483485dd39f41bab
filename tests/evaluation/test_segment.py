"""Segmentation by a model whose groups and words are known exactly."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation.config import Protocol
from evaluation.segment import Segmenter, highest, mosaic
from model import ImageConfig, ModelConfig, OVSegmentor, TextConfig, initial, learn_wordpiece
from tests.benchmarks.memory import peak_gb

CLASSES = ["background", "cat", "dog", "bus"]
WORDS = Protocol(background="words", background_words=("grass",))
AsBatch = Callable[[np.ndarray], Tensor]


def test_words_for_the_background_give_the_true_masks(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    segmenter = Segmenter(oracle_model, CLASSES, WORDS)
    assert segmenter.segment(as_batch(scene)).numpy().tolist() == scene[None].tolist()


def test_a_region_that_no_class_claims_is_background(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    # Grass has cosine 0 with all three classes: probability 1/3 each, below the threshold; cat and bus have 1.
    segmenter = Segmenter(oracle_model, CLASSES, Protocol(threshold=0.9))
    assert segmenter.segment(as_batch(scene)).numpy().tolist() == scene[None].tolist()


def test_the_surest_region_is_an_object_whatever_the_threshold(oracle_model: Any) -> None:
    segmenter = Segmenter(oracle_model, CLASSES, Protocol(threshold=1.0))
    cosine_BRC = torch.tensor([[[0.6, 0.0, 0.0], [0.5, 0.0, 0.0]]])
    oracle_model.scale = lambda: 1.0
    assert segmenter.name(cosine_BRC).tolist() == [[1, 0]]


def test_without_background_the_labels_are_the_classes(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    segmenter = Segmenter(oracle_model, ["bus", "grass", "cat"])
    logits = segmenter.logits(as_batch(scene))
    assert logits.shape == (1, 3, 32, 48)
    assert logits.argmax(1)[0, 20, 34] == 0
    assert logits.argmax(1)[0, 0, 0] == 1
    assert logits.argmax(1)[0, 10, 8] == 2


def test_embeddings_serve_in_place_of_names(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    by_name = Segmenter(oracle_model, ["grass", "cat", "dog", "bus"])
    by_vector = Segmenter(oracle_model, torch.eye(4))
    assert torch.equal(by_name.logits(as_batch(scene)), by_vector.logits(as_batch(scene)))


@pytest.mark.parametrize(("window", "stride"), [(16, 8), (16, None), (24, 12), (20, 20)])
def test_windows_give_what_the_whole_image_gives(
    oracle_model: Any, scene: np.ndarray, as_batch: AsBatch, window: int, stride: int | None
) -> None:
    protocol = Protocol(background="words", background_words=("grass",), window=window, stride=stride)
    segmenter = Segmenter(oracle_model, CLASSES, protocol)
    assert segmenter.segment(as_batch(scene)).numpy().tolist() == scene[None].tolist()


def test_windows_of_all_images_share_one_pass(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    segmenter = Segmenter(oracle_model, CLASSES, Protocol(window=16, stride=8))
    segmenter.segment(as_batch(scene).expand(5, -1, -1, -1))
    assert oracle_model.passes == 1


def test_maps_are_averaged_where_windows_overlap(oracle_model: Any, as_batch: AsBatch) -> None:
    # One row of 6 pixels, windows of 4 with stride 2: [0, 4) and [2, 6). The first answers 0 everywhere, the second 2.
    segmenter = Segmenter(oracle_model, CLASSES, Protocol(window=4, stride=2))
    regions = segmenter.regions(as_batch(np.zeros((4, 6), np.uint8)))[0]
    mean_CHW = mosaic(regions, lambda window: torch.full((1, 4, 4), 2.0 * window))
    assert mean_CHW[0].tolist() == [[0, 0, 1, 1, 2, 2]] * 4


def test_patches_are_spread_over_their_pixels(patchy_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    # Only the corner pixels of the two rectangles are lost: their own patch has (5/8)^2 < 1/2 of the weight there.
    label_HW = Segmenter(patchy_model, CLASSES, WORDS).segment(as_batch(scene))[0].numpy()
    assert (label_HW != scene).sum() == 8
    assert {(8, 4), (8, 15), (15, 4), (15, 15)} < set(zip(*np.nonzero(label_HW != scene), strict=True))


def test_resizing_returns_masks_at_the_images_own_size(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    protocol = Protocol(background="words", background_words=("grass",), shorter_side=64)
    label_HW = Segmenter(oracle_model, CLASSES, protocol).segment(as_batch(scene))[0].numpy()
    assert label_HW.shape == scene.shape
    assert (label_HW == scene).mean() > 0.95


@pytest.mark.parametrize("size", [(30, 45), (8, 8), (3, 2), (4, 101)])
def test_any_size_of_image_is_segmented_whole(patchy_model: Any, as_batch: AsBatch, size: tuple[int, int]) -> None:
    label_BHW = Segmenter(patchy_model, CLASSES, WORDS).segment(as_batch(np.full(size, 2, np.uint8)))
    assert label_BHW.shape == (1, *size)


def test_soft_assignment_equals_hard_when_groups_are_certain(
    oracle_model: Any, scene: np.ndarray, as_batch: AsBatch
) -> None:
    soft = Protocol(background="words", background_words=("grass",), assignment="soft")
    assert (Segmenter(oracle_model, CLASSES, soft).segment(as_batch(scene))[0].numpy() == scene).mean() > 0.95


def test_only_the_top_classes_of_the_image_are_named(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    # The cat has more pixels than the bus, so with one class allowed the bus cannot be named.
    label_BHW = Segmenter(oracle_model, ["cat", "dog", "bus"], Protocol(top_classes=1)).segment(as_batch(scene))
    assert label_BHW.unique().tolist() == [0]


def test_groups_are_numbered_through_all_windows(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    whole_HW = Segmenter(oracle_model, CLASSES, WORDS).groups(as_batch(scene))[0].numpy()
    assert whole_HW.tolist() == scene.tolist()
    halves = Protocol(background="words", background_words=("grass",), window=32, stride=16)
    group_HW = Segmenter(oracle_model, CLASSES, halves).groups(as_batch(scene))[0].numpy()
    assert (group_HW % 4).tolist() == scene.tolist()
    assert (group_HW[:, :23] // 4 == 0).all()
    assert (group_HW[:, 25:] // 4 == 1).all()


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ([], "no class to look for"),
        (["background"], "no class to look for"),
        (["cat", " "], r"class names at positions \[1\] are empty"),
        (["cat", "dog", "cat"], "class names given twice: cat"),
    ],
)
def test_unusable_class_names_are_refused(oracle_model: Any, classes: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Segmenter(oracle_model, classes)


def small_model(patch_size: int = 16) -> OVSegmentor:
    config = ModelConfig(
        image=ImageConfig(image_size=64, patch_size=patch_size, width=16, num_heads=2, depths=(1, 1)),
        text=TextConfig(width=16, num_layers=1, num_heads=2, max_length=16),
        embedding_width=8,
        projector="linear",
    )
    return initial(config, learn_wordpiece(["a photo of a cat .", "a dog and a bus on the grass ."], 60), seed=0)


@pytest.mark.parametrize("protocol", [Protocol(), Protocol.paper()])
@pytest.mark.parametrize("size", [(8, 8), (1, 1), (1, 700), (3, 40)])
def test_tiny_and_narrow_images_are_segmented(protocol: Protocol, size: tuple[int, int]) -> None:
    image_BCHW = torch.randint(0, 256, (1, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert Segmenter(small_model(), CLASSES, protocol).segment(image_BCHW).shape == (1, *size)


def test_a_huge_image_is_segmented_at_its_own_size_within_bounds() -> None:
    """In a process of its own, whose memory is measured: the image itself has 144 MB, its labels 384 MB."""
    with get_context("spawn").Pool(1) as pool:
        shape, grown_gb = pool.apply(_segment_huge)
    assert shape == (1, 6000, 8000)
    assert grown_gb < 2.5  # labels, the best score and one map of scores, each with a copy; never one per class


def _segment_huge() -> tuple[tuple[int, ...], float]:
    torch.set_num_threads(1)
    segmenter = Segmenter(small_model(), ["background", *(f"thing {number}" for number in range(30))])
    image_BCHW = torch.zeros(1, 3, 6000, 8000, dtype=torch.uint8)
    image_BCHW[..., 1000:3000, 2000:5000] = 200
    before_gb = peak_gb()
    return tuple(segmenter.segment(image_BCHW).shape), peak_gb() - before_gb


def test_a_thousand_classes_give_what_the_logits_give() -> None:
    segmenter = Segmenter(
        small_model(), ["background", *(f"cat {number}" for number in range(1000))], Protocol(threshold=0)
    )
    image_BCHW = torch.randint(0, 256, (1, 3, 40, 56), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(segmenter.segment(image_BCHW), segmenter.logits(image_BCHW).argmax(1))


@pytest.mark.parametrize("background", ["threshold", "words", "confidence"])
@pytest.mark.parametrize("assignment", ["hard", "soft"])
@pytest.mark.parametrize("scores_at_once", [1, 1 << 26])
@pytest.mark.parametrize("patch_share", [0.0, 0.5])
def test_labels_are_the_best_of_the_logits(
    monkeypatch: pytest.MonkeyPatch, background: Any, assignment: Any, scores_at_once: int, patch_share: float
) -> None:
    monkeypatch.setattr("evaluation.segment.SCORES_AT_ONCE", scores_at_once)
    protocol = Protocol(
        shorter_side=48, window=32, stride=16, background=background, assignment=assignment, threshold=0.3,
        background_words=("grass",), top_classes=2, patch_share=patch_share,
    )  # fmt: skip
    segmenter = Segmenter(small_model(8), CLASSES, protocol)
    image_BCHW = torch.randint(0, 256, (2, 3, 33, 70), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(segmenter.segment(image_BCHW), segmenter.logits(image_BCHW).argmax(1))


@pytest.mark.parametrize("assignment", ["hard", "soft"])
def test_a_patch_is_weighed_against_its_groups_by_its_share(
    oracle_model: Any, scene: np.ndarray, as_batch: AsBatch, assignment: Any
) -> None:
    # Groups know the truth, patches see dogs everywhere.
    dog_E = torch.eye(4)[2]
    oracle_model.patch_embedding = lambda image_BCHW: dog_E.expand(len(image_BCHW), 32 * 48, 4)
    words = Protocol(background="words", background_words=("grass",), assignment=assignment)
    for share, expected_HW in {
        0.0: scene,
        0.4: scene,
        0.6: np.full_like(scene, 2),
        1.0: np.full_like(scene, 2),
    }.items():
        segmenter = Segmenter(oracle_model, CLASSES, replace(words, patch_share=share))
        assert segmenter.segment(as_batch(scene))[0].tolist() == expected_HW.tolist()


def test_regions_without_patches_cannot_be_named_by_them(
    oracle_model: Any, scene: np.ndarray, as_batch: AsBatch
) -> None:
    segmenter = Segmenter(oracle_model, CLASSES, Protocol())
    (regions,) = segmenter.regions(as_batch(scene))
    with pytest.raises(
        ValueError, match=r"patch_share = 0\.5: the regions were made without patches; give the segmenter"
    ):
        segmenter.label(regions, Protocol(patch_share=0.5))


def test_images_of_many_sizes_are_seen_as_each_alone(oracle_model: Any, scene: np.ndarray, as_batch: AsBatch) -> None:
    segmenter = Segmenter(oracle_model, CLASSES, Protocol(background="words", background_words=("grass",), window=16))
    truths = [scene, scene.T.copy(), scene[:20], scene]
    found = segmenter.regions([as_batch(truth_HW)[0] for truth_HW in truths])
    for truth_HW, regions in zip(truths, found, strict=True):
        assert segmenter.label(regions).tolist() == truth_HW.tolist()


def test_the_first_of_equals_is_the_highest() -> None:
    maps = torch.tensor([[1, 5, 2], [3, 5, 1], [3, 4, 9]])
    best, position = highest(maps)
    assert best.tolist() == [3, 5, 9]
    assert position.tolist() == [1, 0, 2]
