"""The account of a shard: what became of each image, after the tar was read to its end and every image decoded."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from PIL import Image

from curation.schema import SAMPLES

FAILURE_COLUMNS = [("address", pa.string()), ("cause", pa.string()), ("detail", pa.string())]

ACCOUNT = pa.schema([*SAMPLES, ("digest", pa.string()), *FAILURE_COLUMNS])
"""images/00012.images.parquet: one row per image of the shard, sorted by key.

`cause` is null for stored images; for the others shard, offset, length, width, height and digest are null. `digest` is
the xxh3-128 of the JPEG's bytes, hexadecimal.
"""


def account_of_shard(images: pa.Table, report_path: Path, tar_path: Path, shard: int) -> pa.Table:
    """Return the account (`ACCOUNT`) of the images (`curation.image_list.IMAGES`) of a shard.

    `report_path` is img2dataset's Parquet; an image that it does not name is lost, and counted as such.

    Raises: ValueError when the tar is damaged, an image in it cannot be decoded, or it differs from the report.
    """
    stored = _stored_images(tar_path)
    report = {row["image_key"]: row for row in pq.read_table(report_path).to_pylist()}
    reported = {row["key"] for row in report.values() if row["status"] == "success"}
    if reported != stored.keys():
        raise ValueError(
            f"{tar_path.name}: holds {len(stored)} images, img2dataset reports {len(reported)}; "
            f"the first that differ: {sorted(reported ^ stored.keys())[:3]}"
        )
    columns: dict[str, list[Any]] = {name: [] for name in ACCOUNT.names if name not in ("key", "captions", "address")}
    for key in images["key"].to_pylist():
        row = report.get(key, {"status": "lost", "error_message": "lost: img2dataset wrote no row for this image"})
        found: dict[str, Any] = {}
        if row["status"] == "success":
            found = {**stored[row["key"]], "shard": shard}
        elif row["status"] == "failed_to_resize":
            found = {"cause": "undecodable", "detail": row["error_message"]}
        else:
            found["cause"], _, found["detail"] = row["error_message"].partition(": ")
        for name, values in columns.items():
            values.append(found.get(name))
    arrays = {name: pa.array(values, ACCOUNT.field(name).type) for name, values in columns.items()}
    arrays |= {"key": images["key"], "captions": images["captions"]}
    arrays["address"] = pc.coalesce(images["url"], images["image"])
    return pa.table([arrays[name] for name in ACCOUNT.names], schema=ACCOUNT)


def _stored_images(tar_path: Path) -> dict[str, dict[str, Any]]:
    """Return name -> where and what, for each image of a tar; each is decoded."""
    stored = {}
    with tarfile.open(tar_path, "r:") as tar:
        for member in tar:
            name, _, kind = member.name.rpartition(".")
            if kind != "jpg":
                continue
            file = tar.extractfile(member)
            content = file.read() if file else b""
            try:
                with Image.open(io.BytesIO(content)) as image:
                    image.load()
                    width, height = image.size
            except (OSError, ValueError, SyntaxError) as error:
                raise ValueError(f"{tar_path.name}: {member.name} cannot be decoded: {error}") from error
            stored[name] = {
                "offset": member.offset_data,
                "length": member.size,
                "width": width,
                "height": height,
                "digest": xxhash.xxh3_128_hexdigest(content),
            }
    return stored
