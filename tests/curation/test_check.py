from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.check import check_images, damaged_shards
from curation.download import DownloadConfig, download
from curation.images import Samples

CONFIG = DownloadConfig(image_size=32, shard_size=4, processes=1)


@pytest.fixture(scope="module")
def stored(make_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with nine images in three shards; its parent holds their files."""
    root = tmp_path_factory.mktemp("check")
    for number in range(9):
        Image.effect_noise((50, 40), 80).save(root / f"{number}.png")
    data_dir: Path = make_data(root / "data", {f"{number}.png": ["cat"] for number in range(9)})
    download(data_dir, CONFIG, image_root=root)
    return data_dir


def _digests(data_dir: Path) -> dict[int, str]:
    paths = (data_dir / "images").glob("*.images.parquet")
    return {row["key"]: row["digest"] for path in paths for row in pq.read_table(path).to_pylist()}


def test_whole_shards_pass(stored: Path) -> None:
    assert damaged_shards(stored / "images") == []
    assert check_images(stored) == 3


@pytest.mark.parametrize("kind", ["flipped", "cut", "lost", "header"])
def test_a_damaged_shard_is_named_and_fetched_again_alone(stored: Path, tmp_path: Path, kind: str) -> None:
    data_dir = tmp_path / "data"
    shutil.copytree(stored, data_dir)
    path = data_dir / "images" / "00001.tar"
    content = bytearray(path.read_bytes())
    account = pq.read_table(data_dir / "images" / "00001.images.parquet").to_pylist()
    hit = max(account, key=lambda row: row["offset"])
    if kind == "flipped":
        content[hit["offset"] + hit["length"] // 2] ^= 4
    elif kind == "cut":
        content = content[: hit["offset"] + 10]
    elif kind == "header":
        content[300] ^= 1
    path.write_bytes(content)
    if kind == "lost":
        path.unlink()
    keys = [hit["key"]] if kind in ("flipped", "cut") else []
    assert [(damage.name, damage.keys) for damage in damaged_shards(data_dir / "images")] == [("00001.tar", keys)]
    others = {p.name: p.stat().st_mtime_ns for p in (data_dir / "images").glob("0000[02].*")}

    with pytest.raises(ValueError, match=r"1 damaged:\n  00001\.tar: .*\nrun the download of this folder again"):
        check_images(data_dir)
    with pytest.raises(FileNotFoundError, match="2 shards are whole, others are missing or were found damaged before"):
        check_images(data_dir)
    download(data_dir, CONFIG, image_root=stored.parent)

    assert {p.name: p.stat().st_mtime_ns for p in (data_dir / "images").glob("0000[02].*")} == others
    assert _digests(data_dir) == _digests(stored)
    assert check_images(data_dir) == 3
    samples = Samples(data_dir / "images")
    assert len([samples.read(row) for row in range(9)]) == 9


def test_a_folder_of_another_version_is_refused(stored: Path, tmp_path: Path) -> None:
    data_dir = shutil.copytree(stored, tmp_path / "data")
    manifest = data_dir / "images" / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    with pytest.raises(ValueError, match="schema version 1, expected 2; remove images/ and run its stage again"):
        check_images(data_dir)


def test_a_folder_without_shards_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="holds no finished shard; run `ovseg download` first"):
        damaged_shards(tmp_path)
