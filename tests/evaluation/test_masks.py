"""Files of masks: read back by the programs that they are meant for."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from evaluation.masks import coco_masks, mask_files, mask_png, overlay_png
from evaluation.pictures import colour

WORDS = ("dog", "grass", "bus")


@pytest.fixture
def labels() -> np.ndarray:
    """Two dogs (5 pixels) and a bus (2), no grass, on a background of 5."""
    return np.array([[1, 1, 0, 3], [1, 1, 0, 3], [0, 0, 0, 1]])


def test_a_mask_keeps_every_label_and_has_the_colours_of_the_overlay(labels: np.ndarray) -> None:
    mask = Image.open(io.BytesIO(mask_png(labels, 3)))
    assert mask.mode == "P"
    assert np.asarray(mask).tolist() == labels.tolist()
    assert np.asarray(mask.convert("RGB"))[0].tolist() == [list(colour(0))] * 2 + [[0] * 3, list(colour(2))]


def test_a_thousand_words_keep_their_labels() -> None:
    label_HW = np.arange(1001).reshape(7, 143)
    assert np.asarray(Image.open(io.BytesIO(mask_png(label_HW, 1000)))).tolist() == label_HW.tolist()


def test_pycocotools_reads_the_masks_back(labels: np.ndarray, tmp_path: Path) -> None:
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(coco_masks(labels, WORDS, "a.jpg")))
    coco = COCO(path)
    assert [(category["id"], category["name"]) for category in coco.loadCats(coco.getCatIds())] == [
        *((1, "dog"), (2, "grass"), (3, "bus")),
    ]
    assert coco.loadImgs([1]) == [{"id": 1, "file_name": "a.jpg", "width": 4, "height": 3}]
    dog, bus = coco.loadAnns(coco.getAnnIds())
    for annotation, label in ((dog, 1), (bus, 3)):
        assert coco.annToMask(annotation).tolist() == (labels == label).astype(int).tolist()
    assert (dog["category_id"], dog["area"], dog["bbox"]) == (1, 5, [0, 0, 4, 3])
    assert (bus["category_id"], bus["area"], bus["bbox"]) == (3, 2, [3, 0, 1, 2])


def test_an_image_of_background_alone_has_no_annotation() -> None:
    assert coco_masks(np.zeros((2, 2), int), WORDS, "a.jpg")["annotations"] == []


def test_a_small_overlay_is_enlarged_and_has_its_legend_below(labels: np.ndarray) -> None:
    picture = Image.open(io.BytesIO(overlay_png(np.zeros((3, 4, 3), np.uint8), labels, WORDS)))
    assert picture.width == 512
    assert picture.height > 384
    below = np.asarray(picture)[384:].reshape(-1, 3).tolist()
    assert list(colour(0)) in below
    assert list(colour(2)) in below
    assert list(colour(1)) not in below  # no grass


def test_the_255th_word_is_painted_like_any_other() -> None:
    words = [f"word {number}" for number in range(255)]
    picture = Image.open(io.BytesIO(overlay_png(np.zeros((2, 2, 3), np.uint8), np.full((2, 2), 255), words)))
    assert list(colour(254)) in np.asarray(picture)[512:].reshape(-1, 3).tolist()


def test_an_image_has_three_files(labels: np.ndarray) -> None:
    files = mask_files(np.zeros((3, 4, 3), np.uint8), labels, WORDS, "a.jpg")
    assert list(files) == ["-mask.png", "-coco.json", "-overlay.png"]
    assert files["-mask.png"] == mask_png(labels, 3)
