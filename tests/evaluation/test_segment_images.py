"""Images to files of masks: right masks, bad images counted, questions that make no sense refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.config import Protocol
from evaluation.segment_images import default_protocol, label_image, segment_images, split_words, word_segmenter

PROTOCOL = Protocol(background="words", background_words=("grass",))


@pytest.fixture
def photos(tmp_path: Path, scene: np.ndarray, as_batch: Callable[[np.ndarray], Any]) -> list[Path]:
    """A scene of a cat and a bus, the same lying on its side, and a file that is no image."""
    paths = [tmp_path / name for name in ("upright.png", "lying.png", "broken.jpg")]
    for path, truth_HW in zip(paths, (scene, scene.T.copy()), strict=False):
        Image.fromarray(as_batch(truth_HW)[0].permute(1, 2, 0).numpy()).save(path)
    paths[2].write_bytes(b"no image")
    return paths


def test_masks_have_the_images_own_size_and_the_labels_of_the_words(
    photos: list[Path], scene: np.ndarray, tmp_path: Path, oracle_model: Any
) -> None:
    words = ("bus", "cat")
    segment_images(word_segmenter(oracle_model, words, PROTOCOL), words, photos[:2], tmp_path / "out")
    expected_HW = np.array([0, 2, 0, 1])[scene]
    for name, label_HW in (("upright", expected_HW), ("lying", expected_HW.T)):
        assert np.asarray(Image.open(tmp_path / f"out/{name}-mask.png")).tolist() == label_HW.tolist()
    coco = json.loads((tmp_path / "out/upright-coco.json").read_text())
    assert {row["category_id"]: row["area"] for row in coco["annotations"]} == {1: 64, 2: 96}


def test_an_image_that_cannot_be_read_is_a_row_with_the_reason(
    photos: list[Path], tmp_path: Path, oracle_model: Any
) -> None:
    segmenter = word_segmenter(oracle_model, ("bus", "cat"), PROTOCOL)
    result = segment_images(segmenter, ("bus", "cat"), photos, tmp_path / "out")
    assert json.loads(json.dumps(result)) == json.loads((tmp_path / "out/segmentation.json").read_text())
    assert [Path(row["image"]).name for row in result["images"]] == ["upright.png", "lying.png"]
    assert result["images"][0]["pixels"] == {"background": 32 * 48 - 96 - 64, "bus": 64, "cat": 96}
    ((refused),) = result["refused"]
    assert refused["image"] == str(photos[2])
    assert "no image" in refused["reason"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["segmentation.json", *(file for row in result["images"] for file in row["files"])]
    )


def test_a_run_without_a_readable_image_fails_with_the_reason(
    photos: list[Path], tmp_path: Path, oracle_model: Any
) -> None:
    segmenter = word_segmenter(oracle_model, ("bus", "cat"), PROTOCOL)
    with pytest.raises(ValueError, match=r"none of 1 images can be read; .*broken.jpg: no image"):
        segment_images(segmenter, ("bus", "cat"), photos[2:], tmp_path / "out")


def test_images_that_would_overwrite_each_other_are_refused_before_any_is_read(
    tmp_path: Path, oracle_model: Any
) -> None:
    segmenter = word_segmenter(oracle_model, ("bus", "cat"), PROTOCOL)
    with pytest.raises(ValueError, match=r"a/1.jpg and b/1.png would both be written as 1-mask.png"):
        segment_images(segmenter, ("bus", "cat"), [Path("a/1.jpg"), Path("b/1.png")], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("side", [1, 8])
def test_a_tiny_image_has_a_tiny_mask(side: int, patchy_model: Any) -> None:
    segmenter = word_segmenter(patchy_model, ("bus", "cat"), PROTOCOL)
    red_HWC = np.broadcast_to(np.array([250, 0, 0], np.uint8), (side, side, 3)).copy()
    assert label_image(segmenter, red_HWC).tolist() == [[2] * side] * side


def test_words_are_split_at_commas() -> None:
    assert split_words(" dog, tall grass,bus ") == ("dog", "tall grass", "bus")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (" ", "no class to look for"),
        ("dog,,bus", r"positions \[1\] are empty"),
        ("dog, bus, dog", "given twice: dog"),
        ("dog, background", "'background' is always there"),
    ],
)
def test_words_that_make_no_sense_are_refused(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        split_words(text)


def test_background_words_change_the_rule_and_none_leave_it(oracle_model: Any) -> None:
    words = ("bus", "cat")
    assert word_segmenter(oracle_model, words, Protocol(), "grass").protocol == PROTOCOL
    assert word_segmenter(oracle_model, words, Protocol(threshold=0.3), " ").protocol == Protocol(threshold=0.3)


def test_a_single_word_needs_something_to_be_compared_with(oracle_model: Any) -> None:
    with pytest.raises(ValueError, match="'cat' alone is compared with nothing"):
        word_segmenter(oracle_model, ("cat",), Protocol())
    assert word_segmenter(oracle_model, ("cat",), Protocol(), "grass, dog").num_classes == 2


def test_a_model_is_asked_at_its_own_size_or_as_published(oracle_model: Any) -> None:
    oracle_model.config.image.image_size = 64
    assert default_protocol(oracle_model) == Protocol(shorter_side=64)
    oracle_model.behaviour = "paper"
    assert default_protocol(oracle_model) == Protocol.paper()


def test_a_thousand_words_are_told_apart(oracle_model: Any, scene: np.ndarray, as_batch: Any) -> None:
    words = (*(f"thing {number}" for number in range(998)), "bus", "cat")
    label_HW = label_image(word_segmenter(oracle_model, words, PROTOCOL), as_batch(scene)[0].permute(1, 2, 0).numpy())
    assert label_HW.tolist() == np.array([0, 1000, 0, 999])[scene].tolist()
