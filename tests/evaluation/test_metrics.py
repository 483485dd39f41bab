"""The confusion matrix on cases that can be counted by hand, and against a slow plain version."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torchmetrics.classification import MulticlassConfusionMatrix, MulticlassJaccardIndex

from evaluation.benchmarks import BENCHMARKS
from evaluation.metrics import BestOverlap, ConfusionMatrix, seen_and_unseen


def test_iou_of_a_matrix_counted_by_hand() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([[0, 0, 0, 1], [1, 1, 255, 255]]), np.array([[0, 0, 1, 1], [1, 0, 0, 2]]))
    # Truth 0: two right, one called 1. Truth 1: two right, one called 0. The void pixels do not count.
    assert matrix.count_CC.tolist() == [[2, 1, 0], [1, 2, 0], [0, 0, 0]]
    assert matrix.iou()[:2].tolist() == [2 / 4, 2 / 4]
    assert math.isnan(matrix.iou()[2])
    assert matrix.miou() == 0.5


def test_a_class_that_is_only_predicted_counts_as_zero() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.zeros(4, int), np.array([0, 0, 0, 1]))
    assert matrix.iou().tolist() == [3 / 4, 0]
    assert matrix.miou() == 3 / 8


def test_areas_are_summed_over_images_before_the_ratio() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.array([1, 1]), np.array([1, 1]))
    matrix.update(np.array([1, 1, 1, 0]), np.array([0, 0, 0, 0]))
    assert matrix.iou().tolist() == [1 / 4, 2 / 5]


def test_miou_of_nothing_is_nan() -> None:
    matrix = ConfusionMatrix(2)
    matrix.update(np.full((2, 2), 255), np.zeros((2, 2), int))
    assert math.isnan(matrix.miou())


@pytest.mark.parametrize(
    ("truth", "prediction", "message"),
    [
        ([0, 3], [0, 0], r"truth has labels from 0 to 3, but there are 3 classes \(0 to 2\)"),
        ([0, 1], [0, -1], "prediction has labels from -1 to 0"),
        ([0, 1], [0], r"truth has the shape \(2,\), the prediction \(1,\)"),
    ],
)
def test_wrong_labels_and_shapes_are_named(truth: list[int], prediction: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ConfusionMatrix(3).update(np.array(truth), np.array(prediction))


def test_a_byte_array_of_many_classes_does_not_overflow() -> None:
    matrix = ConfusionMatrix(200)
    matrix.update(np.array([199], np.uint8), np.array([198], np.uint8))
    assert matrix.count_CC[199, 198] == 1


labels = arrays(np.uint8, (5, 7), elements=st.sampled_from([0, 1, 2, 3, 255]))


@given(truth=labels, prediction=arrays(np.uint8, (5, 7), elements=st.integers(0, 3)))
def test_iou_equals_sets_of_pixels(truth: np.ndarray, prediction: np.ndarray) -> None:
    matrix = ConfusionMatrix(4)
    matrix.update(truth, prediction)
    for label, iou in enumerate(matrix.iou()):
        true = {place for place in np.ndindex(5, 7) if truth[place] == label}
        said = {place for place in np.ndindex(5, 7) if prediction[place] == label and truth[place] != 255}
        if true | said:
            assert iou == len(true & said) / len(true | said)
        else:
            assert math.isnan(iou)


def plain(truth_HW: np.ndarray, prediction_HW: np.ndarray, num_classes: int) -> tuple[list[list[int]], list[float]]:
    """Return the confusion matrix and the IoU of each class, pixel by pixel."""
    count = [[0] * num_classes for _ in range(num_classes)]
    for true, said in zip(truth_HW.ravel().tolist(), prediction_HW.ravel().tolist(), strict=True):
        if true != 255:
            count[true][said] += 1
    ious = []
    for label in range(num_classes):
        union = sum(count[label]) + sum(row[label] for row in count) - count[label][label]
        ious.append(count[label][label] / union if union else math.nan)
    return count, ious


def assert_agrees(truths: list[np.ndarray], predictions: list[np.ndarray], num_classes: int) -> None:
    """Check our figures against torchmetrics and the plain version, on all images together: exactly."""
    matrix = ConfusionMatrix(num_classes)
    theirs = MulticlassConfusionMatrix(num_classes, ignore_index=255)
    jaccard = MulticlassJaccardIndex(num_classes, ignore_index=255, average=None)
    total = np.zeros((num_classes, num_classes), int)
    for truth_HW, prediction_HW in zip(truths, predictions, strict=True):
        matrix.update(truth_HW, prediction_HW)
        tensors = torch.from_numpy(prediction_HW.astype(np.int64)), torch.from_numpy(truth_HW.astype(np.int64))
        theirs.update(*tensors)
        jaccard.update(*tensors)
        total += plain(truth_HW, prediction_HW, num_classes)[0]
    _, expected = plain(
        np.concatenate([t.ravel() for t in truths]), np.concatenate([p.ravel() for p in predictions]), num_classes
    )
    assert matrix.count_CC.tolist() == theirs.compute().tolist() == total.tolist()
    np.testing.assert_array_equal(matrix.iou(), expected)
    # torchmetrics says 0 for a class that is nowhere, and computes in float32.
    np.testing.assert_array_equal(np.nan_to_num(matrix.iou()).astype(np.float32), jaccard.compute().numpy())
    known = [iou for iou in expected if not math.isnan(iou)]
    assert matrix.miou() == pytest.approx(math.fsum(known) / len(known), rel=1e-15)
    right = sum(total[label][label] for label in range(num_classes))
    assert matrix.pixel_accuracy() == right / total.sum()
    weighted = sum(share * iou for share, iou in zip(total.sum(1) / total.sum(), np.nan_to_num(expected), strict=True))
    assert matrix.frequency_weighted_iou() == pytest.approx(weighted, rel=1e-12)


@pytest.mark.parametrize("num_classes", [2, 21, 171])
def test_random_masks_score_as_by_torchmetrics_and_by_a_plain_loop(num_classes: int) -> None:
    generator = np.random.default_rng(num_classes)
    truths = [generator.integers(0, num_classes, size).astype(np.uint8) for size in ((37, 41), (20, 64))]
    predictions = [generator.integers(0, num_classes, truth_HW.shape) for truth_HW in truths]
    truths[0][generator.random(truths[0].shape) < 0.1] = 255
    assert_agrees(truths, predictions, num_classes)


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "folder"),
    [("voc", "VOC2012"), ("context", "VOC2010"), ("coco_object", "coco"), ("coco_stuff", "coco_stuff164k"),
     ("ade20k", "ADEChallengeData2016")],
)  # fmt: skip
def test_real_masks_score_as_by_torchmetrics_and_by_a_plain_loop(shared: Path, name: str, folder: str) -> None:
    images = BENCHMARKS[name].open(shared / "real" / folder)
    truths = [images.read(position)[1][::2, ::2] for position in range(min(len(images), 4))]
    # A prediction that is right in places: the truth shifted, with void named as some class.
    predictions = [np.where(truth_HW == 255, 3, np.roll(truth_HW, (5, 9), (0, 1))) for truth_HW in truths]
    predictions = [np.where(prediction_HW == 255, 1, prediction_HW) for prediction_HW in predictions]
    assert_agrees(truths, predictions, len(images.classes))


def test_frequency_weights_follow_the_true_pixels() -> None:
    matrix = ConfusionMatrix(3)
    matrix.update(np.array([0, 0, 0, 1]), np.array([0, 0, 1, 1]))
    # IoU 2/3 of three pixels and 1/2 of one.
    assert matrix.frequency_weighted_iou() == pytest.approx((3 * 2 / 3 + 1 * 1 / 2) / 4)
    assert matrix.pixel_accuracy() == 3 / 4
    empty = ConfusionMatrix(3)
    assert math.isnan(empty.frequency_weighted_iou())
    assert math.isnan(empty.pixel_accuracy())


def test_more_classes_than_masks_can_tell_apart_are_refused() -> None:
    with pytest.raises(ValueError, match="1000 classes take the label 255, which is to be ignored"):
        ConfusionMatrix(1000)
    matrix = ConfusionMatrix(1000, ignore=-1)
    matrix.update(np.array([255, -1]), np.array([999, 0]))
    assert matrix.count_CC.sum() == matrix.count_CC[255, 999] == 1


def test_the_best_group_of_each_region_counts_whatever_its_name() -> None:
    truth_HW = np.array([[0, 0, 1, 1], [0, 0, 1, 255]])
    group_HW = np.array([[7, 7, 7, 9], [7, 7, 9, 9]])
    overlap = BestOverlap(3)
    overlap.update(truth_HW, group_HW)
    # Group 7 has 5 pixels and group 9 has 2 that are not void: class 0 gets 4/5, class 1 gets 2/3.
    assert overlap.per_class()[:2].tolist() == [4 / 5, 2 / 3]
    assert math.isnan(overlap.per_class()[2])
    overlap.update(np.zeros((2, 2), int), np.array([[0, 1], [2, 3]]))
    assert overlap.per_class()[0] == (4 / 5 + 1 / 4) / 2
    assert overlap.regions_C.tolist() == [2, 1, 0]


def test_an_image_of_void_has_no_regions() -> None:
    overlap = BestOverlap(2)
    overlap.update(np.full((2, 2), 255), np.zeros((2, 2), int))
    assert overlap.regions_C.tolist() == [0, 0]


@given(truth=labels, groups=arrays(np.uint8, (5, 7), elements=st.integers(0, 5)))
def test_best_overlap_equals_sets_of_pixels(truth: np.ndarray, groups: np.ndarray) -> None:
    overlap = BestOverlap(4)
    overlap.update(truth, groups)
    counted = {place for place in np.ndindex(5, 7) if truth[place] != 255}
    sets = [{place for place in counted if groups[place] == group} for group in range(6)]
    for label, found in enumerate(overlap.per_class()):
        region = {place for place in counted if truth[place] == label}
        if region:
            assert found == max(len(region & group) / len(region | group) for group in sets)
        else:
            assert math.isnan(found)


def test_unseen_figures_by_hand() -> None:
    classes = ("background", "cat", "dog", "cow")
    found = seen_and_unseen(np.array([0.9, 0.6, 0.4, np.nan]), classes, ("dog",))
    assert found == {"seen_miou": 0.6, "unseen_miou": 0.4, "harmonic_mean": pytest.approx(0.48)}
    with pytest.raises(ValueError, match="unseen classes tiger are not among the classes: background, cat"):
        seen_and_unseen(np.zeros(4), classes, ("tiger",))


def test_no_mean_of_nothing_is_made_up() -> None:
    assert seen_and_unseen(np.zeros(2), ("cat", "dog"), ("dog",))["harmonic_mean"] == 0
    assert math.isnan(seen_and_unseen(np.array([0.5, np.nan]), ("cat", "dog"), ("dog",))["harmonic_mean"])
