"""Benchmark folders: what is read, and what is said when a folder is not one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks import BENCHMARKS, VOC_CLASSES, get_benchmark
from evaluation.metrics import ConfusionMatrix

Write = Callable[..., Path]


def test_images_come_in_the_order_of_the_list(tmp_path: Path, scene: np.ndarray, write_benchmark: Write) -> None:
    root = write_benchmark(tmp_path / "b", [scene, np.zeros_like(scene)])
    (root / "ImageSets/Segmentation/val.txt").write_text("001\n000\n")
    images = BENCHMARKS["scenes"].open(root)
    assert images.names == ("001", "000")
    assert images.classes == ("background", "cat", "dog", "bus")
    image_HWC, truth_HW = images.read(1)
    assert image_HWC.shape == (32, 48, 3)
    assert truth_HW.tolist() == scene.tolist()


def test_voc_has_the_names_of_the_release(shared: Path) -> None:
    assert "\n".join(VOC_CLASSES) == (shared / "reference/classes/pascal_voc_21.txt").read_text().strip()


test_voc_has_the_names_of_the_release = pytest.mark.real_data(test_voc_has_the_names_of_the_release)


@pytest.mark.real_data
def test_the_truth_of_real_masks_scores_exactly_100(shared: Path) -> None:
    images = BENCHMARKS["voc"].open(shared / "real/VOC2012")
    assert len(images) == 90
    matrix = ConfusionMatrix(len(images.classes))
    for position in range(len(images)):
        _, truth_HW = images.read(position)
        matrix.update(truth_HW, np.where(truth_HW == 255, 0, truth_HW))
    present_C = matrix.count_CC.sum(1) > 0
    assert present_C.sum() >= 18
    assert (matrix.iou()[present_C] == 1).all()
    assert matrix.miou() == 1


def test_a_folder_of_another_layout_is_told_what_was_looked_for_and_found(tmp_path: Path) -> None:
    (tmp_path / "VOC2012").mkdir()
    with pytest.raises(FileNotFoundError, match=r"looked for JPEGImages, .*val\.txt; missing: .*; found: VOC2012"):
        BENCHMARKS["voc"].open(tmp_path)
    with pytest.raises(FileNotFoundError, match="found: no such folder"):
        BENCHMARKS["voc"].open(tmp_path / "absent")


def test_a_listed_image_without_file_is_named(tmp_path: Path, scene: np.ndarray, write_benchmark: Write) -> None:
    root = write_benchmark(tmp_path / "b", [scene, scene])
    (root / "SegmentationClass/001.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"lists 2 images, but 1 have no mask, the first: .*001\.png"):
        BENCHMARKS["scenes"].open(root)


def test_an_empty_list_is_refused(tmp_path: Path, scene: np.ndarray, write_benchmark: Write) -> None:
    root = write_benchmark(tmp_path / "b", [scene])
    (root / "ImageSets/Segmentation/val.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"val\.txt: empty"):
        BENCHMARKS["scenes"].open(root)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (Image.new("L", (40, 32)), "40 x 32 pixels, but its image has 48 x 32"),
        (Image.new("L", (48, 32), 7), r"labels \[7\] are outside the 4 classes \(0 to 3, 255 is ignored\)"),
        (Image.new("RGB", (48, 32)), "a picture of mode RGB; a mask holds one label per pixel"),
    ],
)
def test_a_wrong_mask_is_refused(
    tmp_path: Path, scene: np.ndarray, write_benchmark: Write, mask: Image.Image, message: str
) -> None:
    root = write_benchmark(tmp_path / "b", [scene])
    mask.save(root / "SegmentationClass/000.png")
    with pytest.raises(ValueError, match=message):
        BENCHMARKS["scenes"].open(root).read(0)


def test_an_unknown_benchmark_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="benchmark 'imagenet' is unknown; known are scenes, voc"):
        get_benchmark("imagenet")
