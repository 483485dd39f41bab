"""Photographs as training stores them, for benchmarks: real ones where `../shared/real` is, else noise."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
from PIL import Image

from curation.images import Samples, shard_name, write_samples
from curation.schema import SAMPLES

PHOTOS = Path(__file__).parents[3] / "shared" / "real" / "photos"
STORED, NUM_PHOTOS = 288, 300
"""their shorter side in pixels, and how many"""
CAPTION = {"text": "a photo of a dog on the grass", "mentions": [{"entity": "dog", "start": 11, "end": 14}]}


def stored_photographs(folder: Path) -> tuple[Samples, list[Path]]:
    """Write photographs (drawn ones where there are none) as a shard and as files; return both, in the same order."""
    images_dir = folder / "images"
    images_dir.mkdir()
    found = sorted(PHOTOS.glob("*.jpg"))[:NUM_PHOTOS]
    noise = np.random.default_rng(0)
    shard, rows, files = b"", [], []
    for key in range(NUM_PHOTOS):
        if found:
            image = Image.open(found[key % len(found)]).convert("RGB")
        else:
            image = Image.fromarray(noise.integers(0, 256, (48, 64, 3), np.uint8))
        scale = STORED / min(image.size)
        content = io.BytesIO()
        image.resize((round(image.width * scale), round(image.height * scale))).save(content, "JPEG", quality=90)
        files.append(folder / f"{key}.jpg")
        files[-1].write_bytes(content.getvalue())
        place = {"key": key, "shard": 0, "offset": len(shard), "length": len(content.getvalue())}
        rows.append({**place, "captions": [CAPTION]})
        shard += content.getvalue()
    (images_dir / shard_name(0)).write_bytes(shard)
    write_samples(images_dir, [pa.Table.from_pylist(rows, SAMPLES)], "photos")
    return Samples(images_dir), files
