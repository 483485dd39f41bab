from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.adopt import adopt
from curation.check import check_images
from curation.download import DownloadConfig
from curation.images import Samples
from curation.manifest import read_manifest
from curation.schema import image_key

CONFIG = DownloadConfig(processes=1)


@pytest.fixture
def shards_dir(web: Any, tmp_path: Path) -> Path:
    """Return a folder that img2dataset itself filled: five images, a dead address and a page, in shards of three."""
    kinds = ["image/1", "image/2", "missing/3", "image/4", "page/5", "image/6", "image/7"]
    urls = [f"{web.url}/{kind}" for kind in kinds]
    pq.write_table(pa.table({"url": urls, "caption": ["a cat"] * len(urls)}), tmp_path / "list.parquet")
    command = [
        *(str(Path(sys.executable).with_name("img2dataset")), f"--url_list={tmp_path / 'list.parquet'}"),
        *(f"--output_folder={tmp_path / 'shards'}", "--input_format=parquet", "--output_format=webdataset"),
        *("--url_col=url", "--caption_col=caption", "--number_sample_per_shard=3", "--image_size=32"),
        *("--processes_count=1", "--thread_count=4", "--enable_wandb=False"),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    return tmp_path / "shards"


@pytest.mark.timeout(300)
@pytest.mark.parametrize("has_reports", [True, False])
def test_shards_of_img2dataset_are_linked_and_read_by_key(
    web: Any, make_data: Any, tmp_path: Path, shards_dir: Path, has_reports: bool
) -> None:
    if not has_reports:
        for report in shards_dir.glob("*.parquet"):
            report.unlink()
    wanted = {f"{web.url}/{kind}": ["cat"] for kind in ("image/1", "missing/3", "image/6", "page/5", "image/99")}
    data_dir = make_data(tmp_path / "data", wanted)
    asked = web.asked.total()

    manifest = adopt(data_dir, shards_dir, CONFIG)

    assert web.asked.total() == asked
    samples = Samples(data_dir / "images")
    stored = [image_key(f"{web.url}/{kind}") for kind in ("image/1", "image/6")]
    assert samples.keys.tolist() == sorted(stored)
    for row in range(2):
        assert samples.read(row)[:2] == b"\xff\xd8"
        assert samples.captions(row)[0].text == "cat"
    rows = pq.read_table(data_dir / "images" / "failures.parquet").to_pylist()
    causes = {row["address"].removeprefix(f"{web.url}/"): row["cause"] for row in rows}
    failed = "failed_before" if has_reports else "not_in_shards"
    assert causes == {"missing/3": failed, "page/5": failed, "image/99": "not_in_shards"}
    assert sum(manifest.counts.values()) + len(samples) == len(wanted)
    for number, tar in enumerate(sorted(shards_dir.glob("*.tar"))):
        assert (data_dir / "images" / f"{number:05d}.tar").samefile(tar)
    assert check_images(data_dir) == 3
    card = json.loads((data_dir / "images" / "datacard.json").read_text())
    assert card["figures"]["stored"] == 2
    assert adopt(data_dir, shards_dir, CONFIG) == read_manifest(data_dir / "images")


def test_images_that_cannot_be_used_as_they_are_are_counted(make_data: Any, tmp_path: Path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    plain = _jpeg(Image.effect_noise((40, 30), 60))
    files = {
        "plain": plain,
        "turned": _jpeg(Image.effect_noise((40, 30), 60), exif=turned),
        "cut": plain[:300],
        "page": b"<html>",
        "many": _jpeg(Image.new("L", (41, 30))),
    }
    (tmp_path / "shards").mkdir()
    with tarfile.open(tmp_path / "shards" / "00000.tar", "w") as tar:
        for name, content in files.items():
            url = f"http://host.example/{name}"
            for kind, part in (("jpg", content), ("json", json.dumps({"key": name, "url": url}).encode())):
                member = tarfile.TarInfo(f"{name}.{kind}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))
    data_dir = make_data(tmp_path / "data", {f"http://host.example/{name}": ["cat"] for name in files})

    adopt(data_dir, tmp_path / "shards", replace(CONFIG, max_pixels=1200))

    samples = Samples(data_dir / "images")
    assert [samples.read(row) for row in range(len(samples))] == [plain]
    rows = pq.read_table(data_dir / "images" / "failures.parquet").to_pylist()
    assert {row["address"].rpartition("/")[2]: row["cause"] for row in rows} == {
        **{"turned": "needs_copy", "cut": "undecodable", "page": "not_an_image", "many": "too_many_pixels"},
    }


def _jpeg(image: Image.Image, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **settings)
    return buffer.getvalue()


def test_a_folder_without_tars_is_refused(make_data: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no \.tar; name the folder that img2dataset wrote"):
        adopt(make_data(tmp_path / "data", {"a.jpg": ["cat"]}), tmp_path, CONFIG)
