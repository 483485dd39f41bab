"""The bytes of one image: checked by its header, turned upright, hashed by what it shows."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager

import imagehash
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from curation.fetch import FetchError

Image.init()  # makes the readers of all formats known; only some are known from the start

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "AVIF", "TIFF")
"""Pillow's readers that are asked; some of the others start programs or follow addresses."""
HASHED_SIDE = 64
"""side of the averages that a perceptual hash is taken of (pixels)"""

_ORIENTATION = 0x0112
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
_PNG_DEPTH_AT = 24


def checked(content: bytes, max_pixels: int) -> bytes:
    """Return the file to resize: as it came, or as an upright PNG of 8 bits where OpenCV would show something else.

    OpenCV ignores EXIF's orientation when it keeps an alpha channel, and cuts 16 bits off at 255. Of an animation the
    first frame counts. The size is read from the header, before anything is decoded.

    Raises: FetchError when this is no image, or one of too many pixels.
    """
    with opened(content, max_pixels) as image:
        return content if is_upright(image, content) else _as_png(image)


@contextmanager
def opened(content: bytes, max_pixels: int) -> Iterator[Image.Image]:
    """Yield the image of a file, of which only the header was read.

    Raises: FetchError when this is no image, has too many pixels, or is found broken within the block.
    """
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size
            if width * height > max_pixels:
                raise FetchError("too_many_pixels", f"{width} x {height}")
            yield image
    except UnidentifiedImageError as error:
        raise FetchError("not_an_image", _first_bytes(content)) from error
    except Image.DecompressionBombError as error:
        raise FetchError("too_many_pixels", str(error)) from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow's readers raise all three on broken files
        raise FetchError("undecodable", str(error)) from error


def perceptual_hash(image: Image.Image) -> int:
    """Return the 64-bit pHash of a decoded image: few bits differ between copies of other size or quality."""
    # pHash looks at 32 x 32 pixels; coming there by way of averages costs a fraction of its own Lanczos filter.
    small = image.convert("L").resize((HASHED_SIDE, HASHED_SIDE), Image.Resampling.BOX)
    return int.from_bytes(np.packbits(imagehash.phash(small).hash).tobytes(), "big")


def is_upright(image: Image.Image, content: bytes) -> bool:
    """Return whether a file shows what is meant without being turned by EXIF or brought to 8 bits."""
    if image.format == "TIFF" or image.mode not in _PLAIN_MODES:
        return False
    if image.format == "PNG" and content[_PNG_DEPTH_AT : _PNG_DEPTH_AT + 1] == b"\x10":
        return False
    return bool(image.getexif().get(_ORIENTATION, 1) == 1)


def _as_png(image: Image.Image) -> bytes:
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F") or upright.mode.startswith("I;16"):
        values = np.asarray(upright, np.float64)
        top = 65535.0 if values.max(initial=0) > 255 else 255.0
        upright = Image.fromarray(np.clip(values * (255 / top), 0, 255).astype(np.uint8))
    elif upright.mode not in ("L", "LA", "RGB", "RGBA"):
        upright = upright.convert("RGB")
    buffer = io.BytesIO()
    # Without compression: this file lives until it is resized.
    upright.save(buffer, "PNG", compress_level=0, exif=b"")
    return buffer.getvalue()


def _first_bytes(content: bytes) -> str:
    return f"begins with {content[:16]!r}" if content else "empty"
