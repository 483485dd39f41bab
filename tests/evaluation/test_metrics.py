"""The confusion matrix on cases that can be counted by hand, and against a slow plain version."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from evaluation.metrics import ConfusionMatrix


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
