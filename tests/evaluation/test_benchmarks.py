"""Benchmark folders: what is read, and what is said when a folder is not one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.benchmarks import BENCHMARKS, get_benchmark
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


def test_images_to_choose_by_are_not_those_of_the_figure(
    tmp_path: Path, scene: np.ndarray, write_benchmark: Write
) -> None:
    root = write_benchmark(tmp_path / "b", [scene] * 3)
    (root / "ImageSets/Segmentation/val.txt").write_text("001\n")
    (root / "ImageSets/Segmentation/train.txt").write_text("002\n000\n")
    assert BENCHMARKS["scenes"].open(root, "training").names == ("002", "000")
    with pytest.raises(ValueError, match=r"has no split 'training', all its images belong to the figure"):
        BENCHMARKS["folder"].open(root, "training")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "source", "number"),
    [("voc", "pascal_voc_21", 21), ("context", "pascal_context_60", 60), ("context59", "pascal_context_60", 59),
     ("ade20k", "ade20k_150", 150), ("coco_object", "coco_object_81", 81),
     ("coco_stuff", "coco_stuff_release", 171)],
)  # fmt: skip
def test_classes_have_the_names_of_the_release(shared: Path, name: str, source: str, number: int) -> None:
    expected = (shared / f"reference/classes/{source}.txt").read_text().splitlines()
    classes = BENCHMARKS[name].classes
    assert classes is not None
    assert list(classes) == [line.strip() for line in expected][-number:]


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "folder", "number", "num_classes"),
    [("voc", "VOC2012", 90, 18), ("context", "VOC2010", 4, 8), ("context59", "VOC2010", 4, 8),
     ("ade20k", "ADEChallengeData2016", 2, 6), ("coco_object", "coco", 15, 25),
     ("coco_stuff", "coco_stuff164k", 4, 20)],
)  # fmt: skip
def test_the_truth_of_real_masks_scores_exactly_100(
    shared: Path, name: str, folder: str, number: int, num_classes: int
) -> None:
    images = BENCHMARKS[name].open(shared / "real" / folder)
    assert len(images) == number
    matrix = ConfusionMatrix(len(images.classes))
    for position in range(len(images)):
        _, truth_HW = images.read(position)
        matrix.update(truth_HW, np.where(truth_HW == 255, 0, truth_HW))
    present_C = matrix.count_CC.sum(1) > 0
    assert present_C.sum() >= num_classes
    assert (matrix.iou()[present_C] == 1).all()
    assert matrix.miou() == 1


@pytest.mark.real_data
def test_raw_values_become_the_classes_that_they_stand_for(shared: Path) -> None:
    """Told by what is to be seen in the photographs, not by our own table."""

    def named(name: str, folder: str, image: str) -> set[str]:
        images = BENCHMARKS[name].open(shared / "real" / folder)
        _, truth_HW = images.read(images.names.index(image))
        return {images.classes[label] for label in np.unique(truth_HW) if label != 255}

    assert {"person", "skis", "snow"} <= named("coco_stuff", "coco_stuff164k", "000000000785")
    assert {"building", "grass", "tree", "sky"} <= named("ade20k", "ADEChallengeData2016", "ADE_val_00000001")


def test_values_that_count_nowhere_are_ignored_and_the_others_shift(tmp_path: Path) -> None:
    for folder in ("images/validation", "annotations/validation"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (3, 1)).save(tmp_path / "images/validation/a.jpg")
    Image.fromarray(np.array([[0, 1, 150]], np.uint8)).save(tmp_path / "annotations/validation/a.png")
    images = BENCHMARKS["ade20k"].open(tmp_path)
    assert images.read(0)[1].tolist() == [[255, 0, 149]]
    Image.fromarray(np.array([[0, 1, 151]], np.uint8)).save(tmp_path / "annotations/validation/a.png")
    with pytest.raises(ValueError, match=r"labels \[151\] are outside the 150 classes \(values up to 150"):
        images.read(0)


def test_any_folder_of_images_and_masks_is_a_benchmark(tmp_path: Path, scene: np.ndarray) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    Image.new("RGB", (48, 32)).save(tmp_path / "images/one.webp")
    Image.fromarray(scene).save(tmp_path / "masks/one.png")
    (tmp_path / "classes.txt").write_text("background\ncat\ndog\nbus\n")
    images = BENCHMARKS["folder"].open(tmp_path)
    assert images.names == ("one",)
    assert images.read(0)[1].tolist() == scene.tolist()


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
        (Image.new("L", (48, 32), 7), r"labels \[7\] are outside the 4 classes \(values up to 3, 255 is ignored\)"),
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


def test_a_thousand_classes_are_too_many_for_masks_of_bytes(
    tmp_path: Path, scene: np.ndarray, write_benchmark: Write
) -> None:
    root = write_benchmark(tmp_path / "b", [scene], [f"thing {number}" for number in range(1000)])
    with pytest.raises(ValueError, match="1000 classes, but masks of 8 bits tell at most 255 apart"):
        BENCHMARKS["scenes"].open(root)


def test_a_grey_image_is_read_as_three_equal_channels(
    tmp_path: Path, scene: np.ndarray, write_benchmark: Write
) -> None:
    root = write_benchmark(tmp_path / "b", [scene])
    Image.new("L", (48, 32), 77).save(root / "JPEGImages/000.jpg", "png")
    image_HWC, _ = BENCHMARKS["scenes"].open(root).read(0)
    assert image_HWC.shape == (32, 48, 3)
    assert (image_HWC == 77).all()


def test_a_broken_image_is_named(tmp_path: Path, scene: np.ndarray, write_benchmark: Write) -> None:
    root = write_benchmark(tmp_path / "b", [scene])
    images = BENCHMARKS["scenes"].open(root)
    content = (root / "JPEGImages/000.jpg").read_bytes()
    (root / "JPEGImages/000.jpg").write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match=r"000\.jpg: broken \(.*\); restore the file"):
        images.read(0)
    (root / "JPEGImages/000.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"000\.jpg: not an image that can be read"):
        images.size(0)


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_the_usual_unseen_classes_are_classes(name: str) -> None:
    benchmark = BENCHMARKS[name]
    assert set(benchmark.unseen) <= set(benchmark.classes or ())


def test_an_unknown_benchmark_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="benchmark 'imagenet' is unknown; known are ade20k, coco_object, "):
        get_benchmark("imagenet")
