"""The account of a shard: what became of each image, after the tar was read to its end and every image decoded."""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.fetch import FetchError
from curation.image_bytes import opened, perceptual_hash
from curation.schema import SAMPLES

IMAGE_KINDS = ("jpg", "jpeg", "png", "webp")
"""Endings of the images in a webdataset tar."""

PLACE = [SAMPLES.field(name) for name in ("shard", "path", "offset", "length", "width", "height")]
STORED = pa.schema(
    [
        *PLACE,
        ("digest", pa.string()),
        ("phash", pa.uint64()),
        ("original_width", pa.int32()),
        ("original_height", pa.int32()),
    ]
)
FAILED = pa.schema([("cause", pa.string()), ("detail", pa.string()), ("retry_after_s", pa.float32())])

ACCOUNT = pa.schema([SAMPLES.field("key"), *STORED, *FAILED])
"""images/00012.images.parquet: one row per image of the shard, sorted by key.

`cause` is null for stored images, whose columns are those of `STORED`; for the others these are null. `path` is that
of an image that stayed in its folder, null for those in the tar. `digest` is the xxh3-128 of the image's bytes,
hexadecimal, `phash` its perceptual hash, original_width and original_height the size before the image was shrunk.
"""


def account_of_shard(
    images: pa.Table, waits_s: list[float], report_path: Path, tar_path: Path, shard: int, max_pixels: int
) -> pa.Table:
    """Return the account (`ACCOUNT`) of the images (`curation.image_list.IMAGES`) of a shard.

    `waits_s` is what hosts asked to wait, per image; `report_path` is img2dataset's Parquet; an image that it does not
    name is lost, and counted as such.

    Raises: ValueError when the tar is damaged, an image in it cannot be decoded, or it differs from the report.
    """
    stored = {}
    for name, offset, content in images_of(tar_path):
        try:
            stored[name.rpartition(".")[0]] = {"offset": offset, **look_at(content, max_pixels)}
        except FetchError as error:
            raise ValueError(f"{tar_path.name}: {name} cannot be decoded: {error}") from error
    columns = ["image_key", "key", "status", "error_message", "original_width", "original_height"]
    report = {row["image_key"]: row for row in pq.read_table(report_path, columns=columns).to_pylist()}
    reported = {row["key"] for row in report.values() if row["status"] == "success"}
    if reported != stored.keys():
        raise ValueError(
            f"{tar_path.name}: holds {len(stored)} images, img2dataset reports {len(reported)}; "
            f"the first that differ: {sorted(reported ^ stored.keys())[:3]}"
        )
    rows = []
    for key, wait_s in zip(images["key"].to_pylist(), waits_s, strict=True):
        row = report.get(key, {"status": "lost", "error_message": "lost: img2dataset wrote no row for this image"})
        found: dict[str, Any] = {}
        if row["status"] == "success":
            originals = {name: row[name] for name in ("original_width", "original_height")}
            found = {**stored[row["key"]], **originals, "shard": shard}
        elif row["status"] == "failed_to_resize":
            found = {"cause": "undecodable", "detail": row["error_message"]}
        else:
            found["cause"], _, found["detail"] = row["error_message"].partition(": ")
        rows.append({"key": key, **found, "retry_after_s": wait_s if "cause" in found else None})
    return pa.Table.from_pylist(rows, schema=ACCOUNT)


def images_of(tar_path: Path) -> Iterator[tuple[str, int, bytes]]:
    """Yield name, offset and bytes of each image of a tar, which is read to its end.

    Raises: ValueError when the tar is damaged.
    """
    try:
        with tarfile.open(tar_path, "r:") as tar:
            for member in tar:
                if member.name.rpartition(".")[2].lower() in IMAGE_KINDS and (file := tar.extractfile(member)):
                    yield member.name, member.offset_data, file.read()
            end = tar.offset
    except (tarfile.TarError, OSError) as error:
        raise ValueError(f"{tar_path.name}: not a whole tar: {error}") from error
    # tarfile takes a broken header behind the first for the end.
    with tar_path.open("rb") as file:
        file.seek(end)
        if file.read(tarfile.BLOCKSIZE) != tarfile.NUL * tarfile.BLOCKSIZE:
            raise ValueError(f"{tar_path.name}: damaged at byte {end}: expected a header or the end of the tar")


def look_at(content: bytes, max_pixels: int) -> dict[str, Any]:
    """Return length, size, digest and perceptual hash (`STORED`) of an image, which is decoded whole.

    Raises: FetchError when it cannot be, or has too many pixels.
    """
    with opened(content, max_pixels) as image:
        image.load()
        width, height = image.size
        phash = perceptual_hash(image)
    digest = xxhash.xxh3_128_hexdigest(content)
    return {"length": len(content), "width": width, "height": height, "digest": digest, "phash": phash}
