from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

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


def test_a_folder_without_tars_is_refused(make_data: Any, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"holds no \.tar; name the folder that img2dataset wrote"):
        adopt(make_data(tmp_path / "data", {"a.jpg": ["cat"]}), tmp_path, CONFIG)
