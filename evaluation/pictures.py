"""Pictures of masks: overlays in colours that can be told apart, with the legend that names them."""

from __future__ import annotations

import colorsys
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from evaluation.metrics import IGNORE

# Sasha Trubetskoy's list of simple, distinct colours (those which survive colour blindness first).
DISTINCT = (
    *("4363d8", "ffe119", "e6194b", "3cb44b", "f58231", "911eb4", "42d4f4", "f032e6", "800000", "bfef45"),
    *("469990", "fabed4", "9a6324", "dcbeff", "808000", "aaffc3", "000075", "ffd8b1", "a9a9a9", "fffac8"),
)
Paint = Callable[[int], tuple[int, int, int]]
"""position of a class or group -> (red, green, blue) from 0 to 255"""
Legend = list[dict[str, Any]]
"""entries {"name": class, "colours": [#rrggbb, ...]}"""

BACKGROUND_COLOUR = (226, 226, 226)
OPACITY = 0.62
LONGEST = 280
"""most pixels of a picture's longer side"""
PIXELATED = 128
"""pictures up to this side are shown pixel by pixel"""
SHOWN_LEAST, SHOWN_MOST = 512, 4096
"""pixels of the longer side of a picture that is looked at by itself"""
UNLABELLED = -1
"""a pixel that is left as it is"""


def colour(position: int) -> tuple[int, int, int]:
    """Return the colour of the class or group at a position, as (red, green, blue) from 0 to 255."""
    if position < len(DISTINCT):
        red, green, blue = bytes.fromhex(DISTINCT[position])
        return red, green, blue
    hue = position * 0.618034 % 1
    light = (0.45, 0.62, 0.78)[position % 3]
    red, green, blue = (round(255 * channel) for channel in colorsys.hls_to_rgb(hue, light, 0.7))
    return red, green, blue


def voc_colour(label: int) -> tuple[int, int, int]:
    """Return PASCAL VOC's colour of a label: its bits, three at a time, are the high bits of red, green and blue.

    Source: VOClabelcolormap.m of the VOC devkit; the palette of the masks of VOC and Pascal Context.
    """
    red = green = blue = 0
    for bit in range(8):
        red |= (label >> 3 * bit & 1) << 7 - bit
        green |= (label >> 3 * bit + 1 & 1) << 7 - bit
        blue |= (label >> 3 * bit + 2 & 1) << 7 - bit
    return red, green, blue


def overlay(image_HWC: NDArray[np.uint8], label_HW: NDArray[np.int64], paint: Paint = colour) -> NDArray[np.uint8]:
    """Return the image in grey under the colours of its labels; UNLABELLED pixels stay pale, borders are white.

    Shapes: image_HWC [H, W, 3], label_HW [H, W] -> [H, W, 3].
    """
    grey_HW = image_HWC.astype(np.float32) @ np.array([0.299, 0.587, 0.114], np.float32)
    highest = int(label_HW.max(initial=0))
    # The last row of the table is the one that UNLABELLED, -1, points to.
    table = np.array([*map(paint, range(highest + 1)), BACKGROUND_COLOUR], np.float32)
    painted_HWC = OPACITY * table[label_HW] + (1 - OPACITY) * grey_HW[..., None]
    painted_HWC[_borders(label_HW)] = 255
    return painted_HWC.round().astype(np.uint8)


def class_picture(
    image_HWC: NDArray[np.uint8], label_HW: NDArray[np.int64], classes: Sequence[str], has_voc_colours: bool = False
) -> tuple[NDArray[np.uint8], Legend]:
    """Return the overlay of a label map and its legend; background and void stay pale.

    With `has_voc_colours` a class has the colour that VOC's masks give it, label 0 being background.
    Shapes: image_HWC [H, W, 3], label_HW [H, W] -> [H, W, 3].
    """
    has_background = classes[0] == "background"
    hidden_HW = (label_HW == IGNORE) | (has_background & (label_HW == 0))
    shown_HW = np.where(hidden_HW, UNLABELLED, label_HW - has_background)
    paint: Paint = (lambda position: voc_colour(position + 1)) if has_voc_colours else colour
    legend = [
        {"name": classes[position + has_background], "colours": [hexadecimal(paint(int(position)))]}
        for position in np.unique(shown_HW[shown_HW >= 0])
    ]
    return overlay(image_HWC, shown_HW, paint), legend


def group_picture(
    image_HWC: NDArray[np.uint8], group_HW: NDArray[np.int64], label_HW: NDArray[np.int64], classes: Sequence[str]
) -> tuple[NDArray[np.uint8], Legend]:
    """Return the overlay of an image's groups, and a legend: each name with the colours of its groups.

    Shapes: image_HWC [H, W, 3], group_HW, label_HW [H, W] -> [H, W, 3].
    """
    shown_HW = ranked_by_size(group_HW)
    colours: dict[str, list[str]] = {}
    for rank in range(int(shown_HW.max()) + 1):
        name = classes[int(np.bincount(label_HW[shown_HW == rank]).argmax())]
        colours.setdefault(name, []).append(hexadecimal(colour(rank)))
    return overlay(image_HWC, shown_HW), [{"name": name, "colours": found} for name, found in colours.items()]


def ranked_by_size(group_HW: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the groups numbered anew, the largest 0. Shapes: [H, W] -> [H, W]."""
    groups, position_HW, size_G = np.unique(group_HW, return_inverse=True, return_counts=True)
    rank_G = np.empty(len(groups), np.int64)
    rank_G[np.argsort(-size_G, kind="stable")] = np.arange(len(groups))
    return rank_G[position_HW.reshape(group_HW.shape)]


def hexadecimal(rgb: tuple[int, int, int]) -> str:
    """Return a colour as #rrggbb."""
    return "#" + bytes(rgb).hex()


def encode(picture_HWC: NDArray[np.uint8]) -> tuple[bytes, str]:
    """Return the picture as a file and its ending: small ones as exact PNG, larger ones as JPEG."""
    kind = "png" if max(picture_HWC.shape[:2]) <= PIXELATED else "jpeg"
    options: dict[str, Any] = {"optimize": True} if kind == "png" else {"quality": 82, "subsampling": 0}
    buffer = io.BytesIO()
    Image.fromarray(picture_HWC).save(buffer, kind, **options)
    return buffer.getvalue(), kind


def shrunk_image(image_HWC: NDArray[np.uint8], longest: int = LONGEST) -> NDArray[np.uint8]:
    """Return the image with its longer side at most `longest` pixels. Shapes: [H, W, 3] -> [h, w, 3]."""
    picture = Image.fromarray(image_HWC)
    picture.thumbnail((longest, longest))
    return np.asarray(picture)


def shrunk_labels(label_HW: NDArray[np.integer], like_HWC: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the labels at the size of a shrunk image, by the nearest pixel. Shapes: [H, W], [h, w, 3] -> [h, w]."""
    rows, columns = (
        (np.arange(small) * 2 + 1) * large // (2 * small)
        for small, large in zip(like_HWC.shape[:2], label_HW.shape, strict=True)
    )
    return label_HW[np.ix_(rows, columns)].astype(np.int64)


def sized_for_show(
    image_HWC: NDArray[np.uint8], label_HW: NDArray[np.integer]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Return image and labels for a picture by itself: small ones enlarged pixel by pixel, huge ones shrunk.

    Shapes: image_HWC [H, W, 3], label_HW [H, W] -> [h, w, 3], [h, w].
    """
    longest = max(label_HW.shape)
    if longest > SHOWN_MOST:
        image_HWC = shrunk_image(image_HWC, SHOWN_MOST)
        return image_HWC, shrunk_labels(label_HW, image_HWC)
    factor = math.ceil(SHOWN_LEAST / longest)
    return (
        image_HWC.repeat(factor, axis=0).repeat(factor, axis=1),
        label_HW.astype(np.int64).repeat(factor, axis=0).repeat(factor, axis=1),
    )


def with_legend(picture_HWC: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """Return the picture with its legend below, as many entries to a line as fit; wider where an entry needs it.

    Shapes: [H, W, 3] -> [H + lines, W or more, 3].
    """
    height, width = picture_HWC.shape[:2]
    size = max(22, width // 30)
    font = ImageFont.load_default(size)
    gap, line_height = size // 2, round(1.7 * size)
    places: list[tuple[int, int]] = []
    x, line = gap, 0
    for entry in legend:
        needed = round(font.getlength(entry["name"])) + len(entry["colours"]) * (size + gap) + gap
        if x > gap and x + needed > width:
            x, line = gap, line + 1
        places.append((x, line))
        x += needed
        width = max(width, x)
    sheet = Image.new("RGB", (width, height + (line + 1) * line_height + gap if legend else height), "white")
    sheet.paste(Image.fromarray(picture_HWC))
    pen = ImageDraw.Draw(sheet)
    for entry, (x, line) in zip(legend, places, strict=True):
        top = height + gap + line * line_height
        for swatch in entry["colours"]:
            pen.rectangle([x, top, x + size, top + size], fill=swatch, outline="#777777")
            x += size + gap
        pen.text((x, top + size / 2), entry["name"], fill="black", font=font, anchor="lm")
    return np.asarray(sheet)


def _borders(label_HW: NDArray[np.int64]) -> NDArray[np.bool_]:
    # Pixels whose right or lower neighbour has another label; small pictures keep every pixel for colour.
    border_HW = np.zeros(label_HW.shape, bool)
    if max(label_HW.shape) > PIXELATED:
        border_HW[:, :-1] |= label_HW[:, :-1] != label_HW[:, 1:]
        border_HW[:-1] |= label_HW[:-1] != label_HW[1:]
    return border_HW
