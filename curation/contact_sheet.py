"""A contact sheet of example pairs: a line per entity, image beside partner, so that a person sees what was paired."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from curation.images import Samples
from curation.manifest import replacing

SHEET_FILE = "sheet.jpg"

_SIDE = 96
_NAME_WIDTH = 110
_GAP = 14


def write_sheet(folder: Path, samples: Samples, examples: Sequence[tuple[str, Sequence[tuple[int, int]]]]) -> None:
    """Write `sheet.jpg`: for each entity its pairs of rows of `samples`, left the image, right its partner."""
    columns = max((len(pairs) for _, pairs in examples), default=0)
    width = _NAME_WIDTH + columns * (2 * _SIDE + _GAP)
    sheet = Image.new("RGB", (width, _GAP + len(examples) * (_SIDE + _GAP)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(15)
    for line, (entity, pairs) in enumerate(examples):
        top = _GAP + line * (_SIDE + _GAP)
        draw.text((8, top + _SIDE // 2), entity, "black", font, anchor="lm")
        for column, pair in enumerate(pairs):
            left = _NAME_WIDTH + column * (2 * _SIDE + _GAP)
            for place, row in enumerate(pair):
                sheet.paste(_thumbnail(samples.read(row)), (left + place * _SIDE, top))
    with replacing(folder / SHEET_FILE) as path:
        sheet.save(path, "JPEG", quality=85)


def _thumbnail(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content)) as image:
        image.draft("RGB", (_SIDE, _SIDE))
        return ImageOps.fit(image.convert("RGB"), (_SIDE, _SIDE))
