"""Manifests and tables may be anybody's: no name in them leads a reader out of the folder that they describe."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.check import check_images
from curation.download import DownloadConfig, download
from curation.embeddings import read_embeddings
from curation.entities import EntityIndex
from curation.fetch import FetchError, read_local
from curation.folder import open_folder
from curation.images import Samples, write_samples
from curation.manifest import finished_part, mark_part, open_stage, read_manifest
from curation.pair_index import PairIndex
from curation.pairs import build_pairs
from curation.parse import parse
from curation.schema import SAMPLES, SCHEMA_VERSION
from curation.subset import write_subset
from curation.verify import ACCOUNT
from curation.vocabulary_mining import propose_vocabulary
from evaluation.benchmarks import get_benchmark
from evaluation.page import picture_uri

OUTSIDE = "../../etc/passwd"
REFUSED = "expected the name of a file below its folder"
FOLDERS = ("captions", "entities", "postings", "images", "embeddings/captions", "pairs")


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return a data folder whose manifests name a file outside it, which is there."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "passwd").write_bytes(b"root:x:0:0")
    data_dir = tmp_path / "data"
    for folder in FOLDERS:
        (data_dir / folder).mkdir(parents=True)
        started = {"stage": "any", "config": {}, "inputs": {}, "schema_version": SCHEMA_VERSION}
        (data_dir / folder / "started.json").write_text(json.dumps(started))
        parts = [{"name": OUTSIDE, "rows": 1, "digest": "0", "counts": {}}]
        (data_dir / folder / "manifest.json").write_text(json.dumps({**started, "parts": parts, "counts": {}}))
    (row,) = [{"key": 7, "path": f"../{OUTSIDE}", "offset": 0, "length": 4, "width": 1, "height": 1, "captions": []}]
    write_samples(data_dir / "images", [pa.Table.from_pylist([row], schema=SAMPLES)], "digest")
    return data_dir


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_manifest(data_dir: Path, folder: str) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        read_manifest(data_dir / folder)
    with pytest.raises(ValueError, match=REFUSED):
        open_stage(data_dir / folder, "any", {}, {})


@pytest.mark.parametrize(
    "read",
    [
        parse,
        EntityIndex,
        build_pairs,
        propose_vocabulary,
        lambda data_dir: write_subset(data_dir, data_dir / "subset"),
        lambda data_dir: download(data_dir, DownloadConfig()),
        lambda data_dir: list(read_embeddings(data_dir, "captions")),
        lambda data_dir: PairIndex(data_dir).similar("a cat", entity="cat"),
    ],
    ids=["parse", "EntityIndex", "build_pairs", "vocabulary", "subset", "download", "embeddings", "PairIndex"],
)
def test_a_manifest_that_a_stage_or_index_reads(data_dir: Path, read: Callable[[Path], object]) -> None:
    with pytest.raises(ValueError, match=REFUSED):
        read(data_dir)


def test_a_marker(data_dir: Path) -> None:
    (data_dir / "images" / "00000.tar").write_bytes(b"")
    part = {"name": OUTSIDE, "rows": 1, "digest": "0", "counts": {}}
    (data_dir / "images" / "00000.tar.json").write_text(json.dumps(part))
    with pytest.raises(ValueError, match=REFUSED):
        finished_part(data_dir / "images", "00000.tar")


def test_samples(data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    address = f"memory://{tmp_path.name}/data/images"
    fsspec.filesystem("memory").put(f"{data_dir / 'images'}/", f"{address}/", recursive=True)
    for place in (data_dir / "images", address):
        with pytest.raises(ValueError, match=REFUSED):
            Samples(place).read(0)


def test_any_file_of_a_folder(data_dir: Path, tmp_path: Path) -> None:
    for place in (data_dir / "images", f"memory://{tmp_path.name}/data/images"):
        folder = open_folder(place)
        for ask in (folder.has, folder.path, folder.size, lambda name, folder=folder: folder.read(name, 0, 4)):
            for name in (OUTSIDE, "/etc/passwd", "a/../../b", "..", ""):
                with pytest.raises(ValueError, match=REFUSED):
                    ask(name)
        assert not folder.has("a..b/..c")


def test_the_account_of_images_that_were_left_in_their_folder(data_dir: Path) -> None:
    images_dir = data_dir / "images"
    (images_dir / "00000.tar").write_bytes(b"tar")
    mark_part(images_dir, "00000.tar", 1)
    row = {"key": 7, "path": f"../{OUTSIDE}", "offset": 0, "length": 4, "digest": "0"}
    pq.write_table(pa.Table.from_pylist([row], schema=ACCOUNT), images_dir / "00000.images.parquet")
    with pytest.raises(ValueError, match=REFUSED):
        check_images(data_dir)


def test_the_path_of_an_image_in_a_caption_table(data_dir: Path) -> None:
    for path in (f"../{OUTSIDE}", str(data_dir.parent / "etc" / "passwd")):
        with pytest.raises(FetchError, match="outside_root"):
            read_local(data_dir / "images", path, 1000)


@pytest.mark.parametrize("name", [OUTSIDE, "/etc/passwd"])
def test_the_list_of_a_benchmark(tmp_path: Path, name: str) -> None:
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    (tmp_path / "ImageSets" / "Segmentation" / "val.txt").write_text(f"{name}\n")
    with pytest.raises(ValueError, match="which leads out of its folder; expected names of images"):
        get_benchmark("voc").open(tmp_path)


def test_the_pictures_of_an_evaluation(data_dir: Path) -> None:
    with pytest.raises(ValueError, match="which is none of its files; make the folder anew"):
        picture_uri(data_dir / "images", f"../{OUTSIDE}")
