from __future__ import annotations

import io
from pathlib import Path

import pyarrow as pa
from PIL import Image

from curation.contact_sheet import SHEET_FILE, write_sheet
from curation.images import Samples, write_samples
from curation.schema import SAMPLES


def test_pairs_lie_side_by_side_in_the_line_of_their_entity(tmp_path: Path) -> None:
    colours = {"red": (255, 0, 0), "lime": (0, 255, 0), "blue": (0, 0, 255)}
    shard, rows = b"", []
    for key, colour in enumerate(colours):
        file = io.BytesIO()
        Image.new("RGB", (300, 200), colour).save(file, "JPEG")
        rows.append({"key": key, "shard": 0, "offset": len(shard), "length": len(file.getvalue()), "captions": []})
        shard += file.getvalue()
    (tmp_path / "00000.tar").write_bytes(shard)
    write_samples(tmp_path, [pa.Table.from_pylist(rows, schema=SAMPLES)], "digest")
    write_sheet(tmp_path, Samples(tmp_path), [("cat", [(0, 1), (1, 2)]), ("sofa", [(2, 0)])])
    with Image.open(tmp_path / SHEET_FILE) as sheet:
        places = ((158, 62), (254, 62), (364, 62), (460, 62), (158, 172), (254, 172))
        shown = [min(colours, key=lambda name: _distance(colours[name], sheet.getpixel(place))) for place in places]
        assert sheet.getpixel((364, 172)) == (255, 255, 255)
    assert shown == ["red", "lime", "lime", "blue", "blue", "red"]


def _distance(one: tuple[int, ...], other: object) -> float:
    assert isinstance(other, tuple)
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
