"""Background rules side by side: the table against what each rule gives by itself."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evaluation import backgrounds
from evaluation.config import Protocol
from evaluation.metrics import ConfusionMatrix
from evaluation.segment import Segmenter

CLASSES = ("background", "cat", "dog", "bus")
AsBatch = Callable[[np.ndarray], Tensor]


@pytest.fixture
def unsure_segmenter(oracle_model: Any) -> Segmenter:
    """At scale 1 a cat has probability e / (e + 2) = .576 among three classes, and grass 1/3 for each."""
    oracle_model.scale = lambda: 1.0
    return Segmenter(oracle_model, CLASSES, backgrounds.with_words(Protocol(threshold=0.5), CLASSES))


def names(half: int, count: int) -> list[str]:
    return [name for name in (f"{number:03d}" for number in range(100)) if backgrounds.half_of(name) == half][:count]


def compared(segmenter: Segmenter, truths: dict[str, np.ndarray], as_batch: AsBatch) -> Any:
    return np.sum(
        [
            backgrounds.count_areas(segmenter, segmenter.regions(as_batch(truth_HW))[0], truth_HW, name)
            for name, truth_HW in truths.items()
        ],
        0,
    )


def test_every_setting_counts_what_its_own_protocol_labels(
    unsure_segmenter: Segmenter, scene: np.ndarray, as_batch: AsBatch
) -> None:
    truth_HW = scene.copy()
    truth_HW[:4] = 255
    name = names(1, 1)[0]
    area_S23C = compared(unsure_segmenter, {name: truth_HW}, as_batch)
    image_BCHW = as_batch(truth_HW)
    for setting, area_23C in zip(backgrounds.settings(unsure_segmenter.protocol), area_S23C, strict=True):
        matrix = ConfusionMatrix(4)
        matrix.update(truth_HW, Segmenter(unsure_segmenter.model, CLASSES, setting).segment(image_BCHW)[0].numpy())
        expected = [np.diag(matrix.count_CC), matrix.count_CC.sum(1), matrix.count_CC.sum(0)]
        assert area_23C[1].tolist() == np.array(expected).tolist(), setting
        assert not area_23C[0].any()


def test_the_table_has_the_figure_of_each_rule(
    unsure_segmenter: Segmenter, scene: np.ndarray, as_batch: AsBatch
) -> None:
    truths = dict.fromkeys([*names(0, 1), *names(1, 1)], scene)
    area_S23C = compared(unsure_segmenter, truths, as_batch)
    rows = {row["rule"]: row for row in backgrounds.compare(area_S23C, unsure_segmenter.protocol)}
    assert list(rows) == ["threshold", "threshold, fitted", "confidence, fitted", "words"]
    # Between 1/3 and .576 only the grass is background: all is right, and the first such step is 0.35.
    assert rows["threshold"]["miou"] == rows["threshold, fitted"]["miou"] == 1
    assert rows["threshold, fitted"]["setting"].startswith("0.35 and 0.35, each the best of one half")
    # Evenly likely classes have confidence 0, so the first step above it is right.
    assert rows["confidence, fitted"]["miou"] == 1
    assert rows["confidence, fitted"]["setting"].startswith("0.05 and 0.05, ")
    assert rows["words"]["setting"].startswith("22 words: sky, ")
    curve = dict(backgrounds.threshold_curve(area_S23C, unsure_segmenter.protocol))
    assert curve[0.35] == curve[0.55] == 1
    # Without a threshold the 1,376 pixels of grass are called cat, the first of equals, beside 96 true ones.
    assert curve[0.0] == pytest.approx((0 + 96 / 1472 + 1) / 3)


def test_a_threshold_is_fitted_without_the_images_that_it_serves(
    unsure_segmenter: Segmenter, scene: np.ndarray, as_batch: AsBatch
) -> None:
    # One half calls its grass a cat: there no background is best. The other half is asked with that threshold.
    (here,), (there,) = names(0, 1), names(1, 1)
    all_objects_HW = np.where(scene == 0, 1, scene).astype(np.uint8)
    area_S23C = sum(
        backgrounds.count_areas(unsure_segmenter, unsure_segmenter.regions(as_batch(scene))[0], truth_HW, name)
        for name, truth_HW in ((here, scene), (there, all_objects_HW))
    )
    rows = {row["rule"]: row for row in backgrounds.compare(area_S23C, unsure_segmenter.protocol)}
    assert rows["threshold, fitted"]["setting"].startswith("0.35 and 0, ")
    matrix = ConfusionMatrix(4)
    for threshold, truth_HW in ((0.0, scene), (0.35, all_objects_HW)):
        protocol = Protocol(threshold=threshold)
        matrix.update(
            truth_HW, Segmenter(unsure_segmenter.model, CLASSES, protocol).segment(as_batch(scene))[0].numpy()
        )
    assert rows["threshold, fitted"]["miou"] == matrix.miou()


def test_without_images_in_one_half_nothing_is_fitted(
    unsure_segmenter: Segmenter, scene: np.ndarray, as_batch: AsBatch
) -> None:
    area_S23C = compared(unsure_segmenter, {names(0, 1)[0]: scene}, as_batch)
    rules = [row["rule"] for row in backgrounds.compare(area_S23C, unsure_segmenter.protocol)]
    assert rules == ["threshold", "words"]


def test_words_that_are_classes_are_no_background() -> None:
    assert "sky" not in backgrounds.with_words(Protocol(), ("background", "sky", "cat")).background_words
    own = Protocol(background="words", background_words=("sky",))
    assert backgrounds.with_words(own, ("background", "cat")) == own


@pytest.mark.parametrize("patch_share", [0.0, 0.5])
def test_a_sweep_gives_what_each_threshold_gives_by_itself(
    unsure_segmenter: Segmenter, scene: np.ndarray, as_batch: AsBatch, patch_share: float
) -> None:
    regions = unsure_segmenter.regions(as_batch(scene), with_patches=patch_share > 0)[0]
    for rule in ("threshold", "confidence"):
        protocol = replace(unsure_segmenter.protocol, background=rule, patch_share=patch_share)
        swept = list(unsure_segmenter.sweep(regions, protocol, backgrounds.THRESHOLDS))
        for threshold, label_HW in zip(backgrounds.THRESHOLDS, swept, strict=True):
            assert torch.equal(label_HW, unsure_segmenter.label(regions, replace(protocol, threshold=threshold)))
    words = replace(unsure_segmenter.protocol, background="words")
    with pytest.raises(ValueError, match="background = 'words' has no threshold to vary"):
        next(unsure_segmenter.sweep(regions, words, [0.5]))
