"""Classification of whole images by a model that knows the words of four colours."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from evaluation.classify import ClassificationConfig, classify, middle, open_class_folders, rank_of_truth
from tests.evaluation.conftest import COLOURS

SMALL = ClassificationConfig(shorter_side=8, crop=8, batch_size=3, templates="simple")


def write_folders(root: Path, folders: dict[str, list[tuple[int, int, int]]], names: list[str] | None) -> Path:
    for folder, colours in folders.items():
        (root / "val" / folder).mkdir(parents=True)
        for number, colour in enumerate(colours):
            Image.new("RGB", (12, 9), colour).save(root / "val" / folder / f"{number}.JPEG", "png")
    if names:
        (root / "classes.txt").write_text("\n".join(names) + "\n")
    return root


def test_the_nearest_name_is_the_top_one(tmp_path: Path, oracle_model: Any) -> None:
    # Two cats, of which one is painted as a dog; a dog; a bus painted as grass.
    folders = {
        "n1": [COLOURS["cat"], COLOURS["dog"]],
        "n2": [COLOURS["dog"]],
        "n3": [COLOURS["grass"]],
    }
    root = write_folders(tmp_path / "in", folders, ["cat", "dog", "bus"])
    result = classify({"oracle": oracle_model}, root, tmp_path / "out", SMALL)
    row = result["results"][0]
    assert row["top1"] == 2 / 4
    assert row["top5"] == 1
    assert row["per_class_top1"] == [
        {"name": "cat", "images": 2, "top1": 0.5},
        {"name": "dog", "images": 1, "top1": 1.0},
        {"name": "bus", "images": 1, "top1": 0.0},
    ]
    assert json.loads((tmp_path / "out/classification.json").read_text())["results"] == result["results"]


def test_rank_counts_better_classes_and_earlier_equals() -> None:
    score_BC = torch.tensor([[0.1, 0.5, 0.5, 0.9]]).expand(4, 4)
    assert rank_of_truth(score_BC, torch.arange(4)).tolist() == [3, 1, 2, 0]


def test_of_equal_names_the_first_is_the_top_one(tmp_path: Path, oracle_model: Any) -> None:
    root = write_folders(tmp_path / "in", {"n1": [COLOURS["cat"]], "n2": [COLOURS["cat"]]}, ["cat", "cat"])
    row = classify({"oracle": oracle_model}, root, tmp_path / "out", SMALL)["results"][0]
    assert [entry["top1"] for entry in row["per_class_top1"]] == [1, 0]


def test_the_middle_square_is_shown() -> None:
    image_CHW = torch.zeros(3, 8, 24, dtype=torch.uint8)
    image_CHW[:, :, 8:16] = 200
    assert (middle(image_CHW, 8, 8) == 200).all()
    assert middle(torch.zeros(3, 40, 4, dtype=torch.uint8), 16, 8).shape == (3, 8, 8)


def test_a_thousand_wordnet_folders_get_the_names_of_imagenet(tmp_path: Path) -> None:
    for number in range(1000):
        (tmp_path / f"n{number:08d}").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "n00000999/a.png")
    images = open_class_folders(tmp_path)
    assert images.classes[0] == "tench"
    assert images.classes[int(images.label_N[0])] == "toilet paper"


@pytest.mark.parametrize(
    ("folders", "names", "message"),
    [
        ({}, None, "no such folder"),
        ({"a": [], "b": []}, ["cat", "dog"], "2 folders without an image"),
        ({"a": [(0, 0, 0)]}, None, "1 folders, but no classes.txt that names them"),
        ({"a": [(0, 0, 0)]}, ["cat", "dog"], "2 names for 1 folders"),
    ],
)
def test_a_folder_of_another_layout_is_told(
    tmp_path: Path, folders: dict[str, list[tuple[int, int, int]]], names: list[str] | None, message: str
) -> None:
    with pytest.raises((FileNotFoundError, ValueError), match=message):
        open_class_folders(write_folders(tmp_path / "in", folders, names))


def test_images_beside_no_folder_are_told(tmp_path: Path) -> None:
    Image.new("RGB", (2, 2)).save(tmp_path / "ILSVRC2012_val_00000001.png")
    with pytest.raises(FileNotFoundError, match=r"no folder per class .* but ILSVRC2012_val_00000001\.png"):
        open_class_folders(tmp_path)


def test_a_broken_image_is_named(tmp_path: Path, oracle_model: Any) -> None:
    root = write_folders(tmp_path / "in", {"a": [(0, 0, 0)]}, ["cat"])
    (root / "val/a/0.JPEG").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"0\.JPEG: not an image that can be read"):
        classify({"oracle": oracle_model}, root, tmp_path / "out", SMALL)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"crop": 0}, "crop = 0: must be at least 1"),
        ({"shorter_side": 100}, "shorter_side = 100: must be at least crop = 224"),
        ({"templates": "none"}, "templates = 'none': known sets are"),
    ],
)
def test_a_wrong_field_is_named(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ClassificationConfig(**fields)
