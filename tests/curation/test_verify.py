from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xxhash
from PIL import Image

from curation.image_bytes import perceptual_hash
from curation.image_list import IMAGES
from curation.verify import account_of_shard, images_of


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((40, 30), 50).save(buffer, "JPEG")
    return buffer.getvalue()


def _account(folder: Path, stored: dict[str, bytes], report: list[tuple[int, str, str, str | None]]) -> pa.Table:
    with tarfile.open(folder / "00003.tar", "w") as tar:
        for name, content in stored.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    columns = ("image_key", "key", "status", "error_message")
    sizes = {"original_width": 80, "original_height": 60}
    rows = [{**dict(zip(columns, row, strict=True)), **sizes} for row in report]
    pq.write_table(pa.Table.from_pylist(rows), folder / "3.parquet")
    images = pa.Table.from_pylist(
        [{"key": k, "url": f"http://a/{k}", "captions": []} for k in (1, 2, 3)], schema=IMAGES
    )
    return account_of_shard(images, [7.0, 0.0, 0.0], folder / "3.parquet", folder / "00003.tar", 3, 1200)


def test_account_names_the_bytes_of_each_image_and_the_cause_of_each_failure(tmp_path: Path) -> None:
    content = _jpeg()
    report = [(2, "b", "success", None), (1, "a", "failed_to_download", "http_404: Not Found")]
    first, second, third = _account(tmp_path, {"b.jpg": content, "b.txt": b"a cat"}, report).to_pylist()
    assert (first["cause"], first["detail"], first["offset"]) == ("http_404", "Not Found", None)
    where = slice(second["offset"], second["offset"] + second["length"])
    assert (tmp_path / "00003.tar").read_bytes()[where] == content
    assert (second["shard"], second["width"], second["height"], second["cause"]) == (3, 40, 30, None)
    assert second["digest"] == xxhash.xxh3_128_hexdigest(content)
    assert (second["original_width"], second["original_height"], second["retry_after_s"]) == (80, 60, None)
    assert second["phash"] == perceptual_hash(Image.open(io.BytesIO(content)))
    assert first["retry_after_s"] == 7
    assert third["cause"] == "lost"


def test_an_image_that_does_not_decode_refuses_the_shard(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"00003.tar: b.jpg cannot be decoded"):
        _account(tmp_path, {"b.jpg": _jpeg()[:300]}, [(2, "b", "success", None)])


def test_a_shard_that_differs_from_its_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"00003.tar: holds 0 images, img2dataset reports 1; .*\['b'\]"):
        _account(tmp_path, {}, [(2, "b", "success", None)])


def test_a_tar_that_is_cut_or_has_a_broken_header_is_refused(tmp_path: Path) -> None:
    _account(tmp_path, {"b.jpg": _jpeg(), "c.jpg": _jpeg()}, [(2, "b", "success", None), (3, "c", "success", None)])
    path = tmp_path / "00003.tar"
    content = path.read_bytes()
    second = content.index(b"c.jpg")
    for damaged in (content[:second], content[:second] + b"\xff" + content[second + 1 :], content[: second - 700]):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"00003\.tar: (damaged at byte|not a whole tar|b\.jpg cannot be decoded)"):
            list(images_of(path))
