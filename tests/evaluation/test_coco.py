"""Masks drawn from instances."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks import BENCHMARKS, COCO_STUFF_ABSENT
from evaluation.coco import read_instances

CLASSES = ("background", "cat", "dog")


def rectangle(left: int, top: int, right: int, bottom: int) -> list[list[float]]:
    return [[left, top, right, top, right, bottom, left, bottom]]


def write(path: Path, annotations: list[dict[str, Any]], categories: tuple[str, ...] = ("cat", "dog")) -> Path:
    content = {
        "images": [{"id": 7, "file_name": "b.jpg", "height": 4, "width": 6}],
        "categories": [{"id": 3 * number + 1, "name": name} for number, name in enumerate(categories)],
        "annotations": [
            {"id": number, "image_id": 7, "iscrowd": 0, **annotation} for number, annotation in enumerate(annotations)
        ],
    }
    path.write_text(json.dumps(content))
    return path


def test_the_later_instance_lies_on_top(tmp_path: Path) -> None:
    annotations = [
        {"category_id": 1, "segmentation": rectangle(0, 0, 4, 2)},
        {"category_id": 4, "segmentation": rectangle(2, 0, 6, 2)},
    ]
    (mask,) = read_instances(write(tmp_path / "i.json", annotations), CLASSES)
    assert mask.draw().tolist() == [[1, 1, 2, 2, 2, 2], [1, 1, 2, 2, 2, 2], [0] * 6, [0] * 6]


def test_several_polygons_are_one_instance_and_a_crowd_is_its_thing(tmp_path: Path) -> None:
    annotations = [
        {"category_id": 1, "segmentation": rectangle(0, 0, 1, 1) + rectangle(3, 0, 4, 1)},
        # Run lengths go down the columns: 22 pixels of nothing, then the last two of the last column.
        {"category_id": 4, "iscrowd": 1, "segmentation": {"size": [4, 6], "counts": [22, 2]}},
    ]
    (mask,) = read_instances(write(tmp_path / "i.json", annotations), CLASSES)
    expected = np.zeros((4, 6), int)
    expected[0, [0, 3]] = 1
    expected[2:, 5] = 2
    assert mask.draw().tolist() == expected.tolist()


def test_an_image_without_instances_is_background(tmp_path: Path) -> None:
    (mask,) = read_instances(write(tmp_path / "i.json", []), CLASSES)
    assert mask.draw().tolist() == np.zeros((4, 6), int).tolist()


def test_other_categories_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"its 2 categories \(dog, cat, \.\.\.\) are not the 2 things expected \(cat, dog"
    ):
        read_instances(write(tmp_path / "i.json", [], ("dog", "cat")), CLASSES)


@pytest.mark.real_data
def test_instances_give_the_things_of_coco_stuff(shared: Path) -> None:
    """The image that both folders have: equal wherever the pixel map has a label."""
    objects = BENCHMARKS["coco_object"].open(shared / "real/coco")
    _, drawn_HW = objects.read(objects.names.index("000000000139"))
    value_HW = np.asarray(Image.open(shared / "real/coco_stuff164k/annotations/val2017/000000000139.png"))
    things = [value for value in range(91) if value not in COCO_STUFF_ABSENT]
    expected_HW = np.zeros(value_HW.shape, int)
    for label, value in enumerate(things, 1):
        expected_HW[value_HW == value] = label
    labelled_HW = value_HW != 255
    assert len(things) == 80
    assert labelled_HW.mean() > 0.99
    assert (drawn_HW == expected_HW)[labelled_HW].all()


@pytest.mark.real_data
def test_pictures_of_crowds_hold_the_crowd(shared: Path) -> None:
    content = json.loads((shared / "real/coco/annotations/instances_val2017.json").read_text())
    crowds = [annotation for annotation in content["annotations"] if annotation["iscrowd"]]
    images = BENCHMARKS["coco_object"].open(shared / "real/coco")
    label = {category["id"]: number for number, category in enumerate(content["categories"], 1)}
    assert crowds
    for crowd in crowds:
        _, truth_HW = images.read(images.names.index(f"{crowd['image_id']:012d}"))
        assert (truth_HW == label[crowd["category_id"]]).sum() > 0.99 * crowd["area"]  # a little lies below
