"""Images that people name: found in files, folders and patterns, and read as they see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.image_files import UnreadableImageError, find_images, read_image


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "deeper").mkdir()
    for name in ("b.png", "a.JPG", "deeper/c.png", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def test_a_folder_means_the_images_directly_in_it(folder: Path) -> None:
    assert find_images([str(folder)]) == [folder / "a.JPG", folder / "b.png"]


def test_a_pattern_may_reach_into_folders(folder: Path) -> None:
    assert find_images([f"{folder}/**/*.png"]) == [folder / "b.png", folder / "deeper/c.png"]


def test_an_image_named_twice_is_found_once_in_the_order_of_the_sources(folder: Path) -> None:
    assert find_images([str(folder / "b.png"), str(folder)]) == [folder / "b.png", folder / "a.JPG"]


def test_a_file_with_signs_of_a_pattern_in_its_name_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "cat[1].png").write_bytes(b"")
    assert find_images([str(tmp_path / "cat[1].png")]) == [tmp_path / "cat[1].png"]


@pytest.mark.parametrize(
    ("source", "reason"),
    [("nowhere/*.jpg", "matches no file"), ("absent.png", "no such file"), ("deeper/empty", "a folder without images")],
)
def test_a_source_that_means_nothing_is_named(folder: Path, source: str, reason: str) -> None:
    (folder / "deeper/empty").mkdir()
    with pytest.raises(FileNotFoundError, match=reason) as error:
        find_images([str(folder), str(folder / source)])
    assert str(folder / source) in str(error.value)


def test_a_photograph_is_turned_upright(tmp_path: Path) -> None:
    # Orientation 6: the camera was held so that the stored left side is the top; 2 rows x 3 columns become 3 x 2.
    stored_HWC = np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 10
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored_HWC).save(tmp_path / "turned.png", exif=exif)
    assert read_image(tmp_path / "turned.png").tolist() == np.rot90(stored_HWC, -1).tolist()


def test_grey_palette_and_16_bit_images_become_rgb(tmp_path: Path) -> None:
    Image.new("L", (2, 1), 40).save(tmp_path / "grey.png")
    Image.new("RGB", (2, 1), (1, 2, 3)).convert("P", palette=Image.Palette.ADAPTIVE).save(tmp_path / "palette.png")
    Image.fromarray(np.array([[0, 65535]], np.uint16)).save(tmp_path / "deep.png")
    assert read_image(tmp_path / "grey.png").tolist() == [[[40] * 3] * 2]
    assert read_image(tmp_path / "palette.png").tolist() == [[[1, 2, 3]] * 2]
    assert read_image(tmp_path / "deep.png").tolist() == [[[0] * 3, [255] * 3]]


def test_what_is_transparent_is_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[[9, 9, 9, 0], [9, 9, 9, 255]]], np.uint8)).save(tmp_path / "clear.png")
    assert read_image(tmp_path / "clear.png").tolist() == [[[255] * 3, [9] * 3]]


def test_what_is_no_image_or_broken_is_told_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("<html>")
    noise_HWC = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise_HWC).save(tmp_path / "whole.jpg")
    (tmp_path / "half.jpg").write_bytes((tmp_path / "whole.jpg").read_bytes()[:2000])
    (tmp_path / "script.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n")
    for name, reason in (("text.jpg", "no image"), ("half.jpg", "truncated"), ("script.eps", "no image")):
        with pytest.raises(UnreadableImageError, match=reason):
            read_image(tmp_path / name)
