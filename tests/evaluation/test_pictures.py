"""Pictures of masks: colours, legends, sizes."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.pictures import (
    BACKGROUND_COLOUR,
    OPACITY,
    class_picture,
    colour,
    encode,
    group_picture,
    hexadecimal,
    ranked_by_size,
    shrunk_image,
    shrunk_labels,
    sized_for_show,
    voc_colour,
    with_legend,
)

CLASSES = ["background", "cat", "dog"]


def test_classes_are_painted_over_grey_and_named() -> None:
    image_HWC = np.full((1, 4, 3), 100, np.uint8)
    picture_HWC, legend = class_picture(image_HWC, np.array([[0, 255, 1, 2]]), CLASSES)
    expected = [
        [round(OPACITY * channel + (1 - OPACITY) * 100) for channel in painted]
        for painted in (BACKGROUND_COLOUR, BACKGROUND_COLOUR, colour(0), colour(1))
    ]
    assert picture_HWC[0].tolist() == expected
    assert legend == [
        {"name": "cat", "colours": [hexadecimal(colour(0))]},
        {"name": "dog", "colours": [hexadecimal(colour(1))]},
    ]


def test_without_background_the_first_class_is_painted() -> None:
    _, legend = class_picture(np.zeros((1, 2, 3), np.uint8), np.array([[0, 1]]), ["sky", "sea"])
    assert [entry["name"] for entry in legend] == ["sky", "sea"]


def test_groups_are_listed_by_the_name_that_they_were_given() -> None:
    # Group 7 is the largest (5 pixels), then 3 (2) and 9 (1); 7 and 9 are called dog, 3 is called cat.
    group_HW = np.array([[7, 7, 7, 7], [7, 3, 3, 9]])
    label_HW = np.array([[2, 2, 2, 1], [1, 1, 1, 2]])
    _, legend = group_picture(np.zeros((2, 4, 3), np.uint8), group_HW, label_HW, CLASSES)
    assert legend == [
        {"name": "dog", "colours": [hexadecimal(colour(0)), hexadecimal(colour(2))]},
        {"name": "cat", "colours": [hexadecimal(colour(1))]},
    ]


def test_171_classes_have_colours_of_their_own() -> None:
    assert len({colour(position) for position in range(171)}) == 171


@pytest.mark.parametrize(("size", "ending"), [((64, 64), "png"), ((100, 200), "jpeg")])
def test_small_pictures_are_exact(size: tuple[int, int], ending: str) -> None:
    picture_HWC = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    content, found = encode(picture_HWC)
    assert found == ending
    read_HWC = np.asarray(Image.open(io.BytesIO(content)))
    assert read_HWC.shape == picture_HWC.shape
    assert (ending == "jpeg") or (read_HWC == picture_HWC).all()


def test_image_and_labels_shrink_to_one_size_and_small_ones_stay() -> None:
    image_HWC = np.zeros((375, 500, 3), np.uint8)
    label_HW = np.zeros((375, 500), np.uint8)
    label_HW[:, 250:] = 1
    small_HWC = shrunk_image(image_HWC)
    small_HW = shrunk_labels(label_HW, small_HWC)
    assert small_HWC.shape == (210, 280, 3)
    assert small_HW.shape == (210, 280)
    assert (small_HW[:, :140] == 0).all()
    assert (small_HW[:, 140:] == 1).all()
    assert shrunk_labels(label_HW, image_HWC).tolist() == label_HW.tolist()


def test_groups_are_numbered_by_size() -> None:
    assert ranked_by_size(np.array([[7, 3, 3], [9, 3, 9]])).tolist() == [[2, 0, 0], [1, 0, 1]]


def test_a_picture_by_itself_is_neither_tiny_nor_huge() -> None:
    image_HWC, label_HW = sized_for_show(np.arange(12, dtype=np.uint8).reshape(2, 2, 3), np.array([[1, 2], [3, 4]]))
    assert image_HWC.shape == (512, 512, 3)
    assert label_HW[::256, ::256].tolist() == [[1, 2], [3, 4]]
    assert image_HWC[255, 256].tolist() == [3, 4, 5]
    image_HWC, label_HW = sized_for_show(np.zeros((6000, 3, 3), np.uint8), np.zeros((6000, 3), np.uint8))
    assert image_HWC.shape[:2] == label_HW.shape == (4096, 2)
    image_HWC, label_HW = sized_for_show(np.zeros((600, 300, 3), np.uint8), np.zeros((600, 300), np.uint8))
    assert image_HWC.shape[:2] == label_HW.shape == (600, 300)


def test_the_colours_of_voc_are_those_of_its_devkit() -> None:
    assert [voc_colour(label) for label in (0, 1, 15, 20, 255)] == [
        (0, 0, 0), (128, 0, 0), (192, 128, 128), (0, 64, 128), (224, 224, 192)
    ]  # fmt: skip


@pytest.mark.real_data
@pytest.mark.parametrize("folder", ["VOC2012/SegmentationClass", "VOC2010/SegmentationClassContext"])
def test_the_masks_of_voc_and_context_carry_these_colours(shared: Path, folder: str) -> None:
    palette = Image.open(next((shared / "real" / folder).glob("*.png"))).getpalette()
    assert palette is not None
    assert palette[: 3 * 60] == [channel for label in range(60) for channel in voc_colour(label)][: len(palette)]


def test_classes_of_voc_are_shown_in_its_colours() -> None:
    label_HW = np.array([[0, 1], [2, 2]])
    image_HWC = np.zeros((2, 2, 3), np.uint8)
    _, legend = class_picture(image_HWC, label_HW, ["background", "aeroplane", "bicycle"], has_voc_colours=True)
    assert [entry["colours"] for entry in legend] == [["#800000"], ["#008000"]]
    _, legend = class_picture(image_HWC, label_HW, ["aeroplane", "bicycle", "bird"], has_voc_colours=True)
    assert [entry["colours"] for entry in legend] == [["#800000"], ["#008000"], ["#808000"]]


def test_a_legend_goes_below_the_picture_and_breaks_its_lines() -> None:
    picture_HWC = np.zeros((40, 250, 3), np.uint8)
    legend = [{"name": f"a long name {number}", "colours": [hexadecimal(colour(number))]} for number in range(4)]
    heights = [with_legend(picture_HWC, legend[:count]).shape[0] for count in range(5)]
    assert heights[0] == 40
    assert 40 < heights[1] < heights[2] < heights[3] < heights[4]  # one entry fits into a line
    shown_HWC = with_legend(picture_HWC, legend)
    assert (shown_HWC[:40] == 0).all()
    for number in range(4):
        assert list(colour(number)) in shown_HWC[40:].reshape(-1, 3).tolist()


def test_a_name_wider_than_the_picture_widens_it() -> None:
    legend = [{"name": "word " * 40, "colours": ["#ff0000"]}]
    assert with_legend(np.zeros((40, 200, 3), np.uint8), legend).shape[1] > 1000
