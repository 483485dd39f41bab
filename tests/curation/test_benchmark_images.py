from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from curation.benchmark_images import benchmark_hashes, benchmarks_digest
from curation.image_bytes import perceptual_hash


def test_hashes_come_from_folders_and_files_with_the_names_of_their_images(tmp_path: Path) -> None:
    (tmp_path / "voc" / "deep").mkdir(parents=True)
    (tmp_path / "voc" / "notes.txt").touch()
    image = Image.radial_gradient("L")
    image.save(tmp_path / "voc" / "deep" / "a.png")
    (tmp_path / "hashes.txt").write_text("00000000000000ff  coco/1.jpg\n\nffffffffffffffff\n")
    names, hashes = benchmark_hashes([str(tmp_path / "voc"), str(tmp_path / "hashes.txt")])
    assert names == ["voc/deep/a.png", "coco/1.jpg", "hashes.txt line 3"]
    assert hashes.tolist() == [perceptual_hash(image), 255, 2**64 - 1]


@pytest.mark.parametrize("text", ["ff", "zz00000000000000"])
def test_a_wrong_line_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "hashes.txt").write_text(f"00000000000000ff\n{text}\n")
    with pytest.raises(ValueError, match=f"hashes.txt line 2: found '{text}', expected a perceptual hash of 16"):
        benchmark_hashes([str(tmp_path / "hashes.txt")])


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no image; name a folder of images, or a file"):
        benchmarks_digest([str(tmp_path)])


def test_the_digest_changes_with_the_images(tmp_path: Path) -> None:
    Image.new("L", (9, 9)).save(tmp_path / "a.png")
    before = benchmarks_digest([str(tmp_path)])
    Image.effect_noise((9, 9), 50).save(tmp_path / "b.png")
    assert benchmarks_digest([str(tmp_path)]) != before
