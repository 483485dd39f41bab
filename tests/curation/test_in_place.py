from __future__ import annotations

import functools
import io
import json
import random
import shutil
import threading
from dataclasses import replace
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.check import check_images, damaged_shards
from curation.download import DownloadConfig, download
from curation.images import Samples
from curation.manifest import read_manifest
from curation.pairs import PairsConfig, build_pairs
from curation.schema import image_key

CONFIG = DownloadConfig(in_place=True, image_size=32, shard_size=4, max_pixels=10_000, max_bytes=50_000, processes=1)


def _photo(seed: int, mode: str = "RGB") -> Image.Image:
    colours = random.Random(seed).randbytes(12 * 9 * 3)
    return Image.frombytes("RGB", (12, 9), colours).resize((60, 45), Image.Resampling.BICUBIC).convert(mode)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images: plain ones, odd ones that have to be copied, and ones that cannot be used."""
    folder = tmp_path_factory.mktemp("photos")
    (folder / "a b").mkdir()
    _photo(1).save(folder / "a b" / "plain#1.jpg")
    _photo(2, "L").save(folder / "grey.png")
    _photo(3).save(folder / "small.webp")
    shutil.copy(folder / "small.webp", folder / "copy.webp")
    turned = Image.Exif()
    turned[0x0112] = 6
    _photo(4).save(folder / "turned.jpg", exif=turned)
    _photo(5, "CMYK").save(folder / "cmyk.jpg")
    _photo(6, "RGBA").save(folder / "glass.png")
    (folder / "cut.jpg").write_bytes((folder / "a b" / "plain#1.jpg").read_bytes()[:600])
    (folder / "page.jpg").write_text("<html>")
    Image.new("L", (200, 51)).save(folder / "many.png")
    Image.effect_noise((99, 99), 90).convert("RGB").save(folder / "heavy.bmp")
    (folder / "heavy.bmp").write_bytes((folder / "heavy.bmp").read_bytes() + bytes(30_000))
    return folder


IN_PLACE = ("a b/plain#1.jpg", "grey.png", "small.webp", "copy.webp")
COPIED = ("turned.jpg", "cmyk.jpg", "glass.png")
FAILED = {
    **{"cut.jpg": "undecodable", "page.jpg": "not_an_image", "many.png": "too_many_pixels", "heavy.bmp": "too_large"},
    **{"gone.jpg": "no_file", "../data/secret.png": "outside_root"},
}


@pytest.fixture(scope="module")
def stored(photos: Path, make_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder that refers to the photographs."""
    data_dir: Path = make_data(
        tmp_path_factory.mktemp("in-place") / "data", {name: ["cat"] for name in (*IN_PLACE, *COPIED, *FAILED)}
    )
    download(data_dir, CONFIG, image_root=photos)
    return data_dir


def test_plain_images_are_read_from_their_folder_and_the_others_are_stored_or_fail(stored: Path, photos: Path) -> None:
    samples = Samples(stored / "images")
    rows = {name: samples.position(image_key(name)) for name in (*IN_PLACE, *COPIED)}
    assert sorted(rows.values()) == list(range(len(samples)))
    assert {name: samples.read(rows[name]) for name in IN_PLACE} == {
        name: (photos / name).read_bytes() for name in IN_PLACE
    }
    shown = {name: Image.open(io.BytesIO(samples.read(rows[name]))) for name in COPIED}
    assert {(image.format, image.mode) for image in shown.values()} == {("JPEG", "RGB")}
    assert shown["turned.jpg"].size == (32, 43), "not upright, or not shrunk"
    for name, row in rows.items():
        size = Image.open(io.BytesIO(samples.read(row))).size
        assert (samples.table["width"][row].as_py(), samples.table["height"][row].as_py()) == size, name
    failures = pq.read_table(stored / "images" / "failures.parquet").to_pylist()
    assert {row["address"]: row["cause"] for row in failures} == FAILED


def test_the_card_and_the_marks_of_duplicates_know_images_in_their_folder(stored: Path) -> None:
    card = json.loads((stored / "images" / "datacard.json").read_text())
    figures = {name: card["figures"][name] for name in ("images", "stored", "left in their folder")}
    assert figures == {"images": 13, "stored": 7, "left in their folder": 4}
    copies = sorted(image_key(name) for name in ("small.webp", "copy.webp"))
    duplicates = pq.read_table(stored / "images" / "duplicates.parquet").to_pylist()
    assert duplicates == [{"key": key, "group": copies[0]} for key in copies]
    build_pairs(stored, PairsConfig(num_partners=3))
    pairs = pq.read_table(next((stored / "pairs").glob("part-*.parquet"))).to_pylist()
    assert len({row["key"] for row in pairs}) == 7
    assert not [row for row in pairs if {row["key"], row["pair_key"]} == {*copies}]


@pytest.mark.parametrize("kind", ["changed", "grown", "gone"])
def test_a_file_that_changed_is_named_and_looked_at_again_alone(
    stored: Path, photos: Path, tmp_path: Path, kind: str
) -> None:
    data_dir, folder = tmp_path / "data", tmp_path / "photos"
    shutil.copytree(stored, data_dir, symlinks=True)
    shutil.copytree(photos, folder)
    (data_dir / "images" / "files").unlink()
    (data_dir / "images" / "files").symlink_to(folder)
    assert check_images(data_dir) == 4
    before = read_manifest(data_dir / "images")
    path = folder / "grey.png"
    if kind == "changed":
        _photo(7, "L").save(path)
    elif kind == "grown":
        path.write_bytes(path.read_bytes() + b"more")
    else:
        path.unlink()

    [damage] = damaged_shards(data_dir / "images")
    assert damage.keys == [image_key("grey.png")]
    with pytest.raises(
        ValueError, match=r"1 damaged:\n  0000\d\.tar: gone or not what was stored, below files/: grey\.png\n"
    ):
        check_images(data_dir)
    others = {p.name: p.stat().st_mtime_ns for p in (data_dir / "images").glob("*.tar") if p.name != damage.name}
    after = download(data_dir, CONFIG, image_root=folder)

    assert check_images(data_dir) == 4
    assert {name: (data_dir / "images" / name).stat().st_mtime_ns for name in others} == others
    assert after.rows == before.rows - (kind == "gone")
    assert after.digest != before.digest
    if kind != "gone":
        samples = Samples(data_dir / "images")
        assert samples.read(samples.position(image_key("grey.png"))) == path.read_bytes()


def test_a_file_that_is_gone_or_cut_is_named_by_the_reader(stored: Path, photos: Path, tmp_path: Path) -> None:
    images_dir = tmp_path / "images"
    shutil.copytree(stored / "images", images_dir, symlinks=True)
    (images_dir / "files").unlink()
    (images_dir / "files").mkdir()
    (images_dir / "files" / "grey.png").write_bytes((photos / "grey.png").read_bytes()[:-9])
    samples = Samples(images_dir)
    with pytest.raises(ValueError, match=r"files/grey\.png: image \d+ ends at byte \d+, the file at byte \d+; put it"):
        samples.read(samples.position(image_key("grey.png")))
    with pytest.raises(
        FileNotFoundError, match=r"files/small\.webp: not there; put it back, or run `ovseg download --"
    ):
        samples.read(samples.position(image_key("small.webp")))


def test_images_in_their_folder_are_read_from_any_address(
    stored: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    images_dir = stored / "images"
    handler = functools.partial(SimpleHTTPRequestHandler, directory=images_dir)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        for address in (f"file://{images_dir}", f"http://127.0.0.1:{server.server_address[1]}"):
            samples = Samples(address)
            for name in IN_PLACE:
                content = samples.read(samples.position(image_key(name)))
                assert content == (photos / name).read_bytes(), f"{name} from {address}"
        server.shutdown()


def test_images_named_by_url_are_fetched_beside_those_of_a_folder(
    web: Any, photos: Path, make_data: Any, tmp_path: Path
) -> None:
    address = f"{web.url}/image/1"
    data_dir = make_data(tmp_path, {"grey.png": ["cat"], address: ["cat"]})
    download(data_dir, replace(CONFIG, allow_private=True), image_root=photos)
    samples = Samples(data_dir / "images")
    assert samples.read(samples.position(image_key("grey.png"))) == (photos / "grey.png").read_bytes()
    assert Image.open(io.BytesIO(samples.read(samples.position(image_key(address))))).size == (38, 32)


def test_what_is_not_below_a_folder_is_refused(make_data: Any, tmp_path: Path) -> None:
    paths = make_data(tmp_path / "paths", {"red.jpg": ["cat"]})
    for root, message in (
        ("http://127.0.0.1:1", "in_place = True: expected images .* below a folder; found image_root = http://127"),
        ("s3://bucket/photos", "image_root = s3://bucket/photos: expected a folder, or an address with http"),
    ):
        with pytest.raises(ValueError, match=message):
            download(paths, CONFIG, image_root=root)
    urls = make_data(tmp_path / "urls", {"http://127.0.0.1:1/red.jpg": ["cat"]})
    with pytest.raises(ValueError, match=r"in_place = True: .*; found images named by URL"):
        download(urls, CONFIG, image_root=tmp_path)
