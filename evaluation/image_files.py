"""Which images are meant by files, folders and patterns, and their pixels as people see them."""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
"""of the files that count as images of a folder"""
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF")
"""Pillow's readers that are asked; some of the others start programs"""


class UnreadableImageError(ValueError):
    """A file that is no image, or a broken one."""


def find_images(sources: Sequence[str]) -> list[Path]:
    """Return the files that paths, folders and patterns like `photos/**/*.jpg` mean, each once, sorted within a source.

    A folder means the images that lie directly in it.
    Raises: FileNotFoundError that names the source that means nothing.
    """
    found: dict[Path, None] = {}
    for source in sources:
        path = Path(source)
        if path.is_dir():
            matches = [file for file in path.iterdir() if file.suffix.lower() in ENDINGS]
            missing = f"a folder without images (files ending in {', '.join(ENDINGS)})"
        elif path.exists():
            matches, missing = [path], ""
        else:
            # Path.glob refuses absolute patterns.
            matches = [file for file in map(Path, glob(source, recursive=True)) if file.is_file()]  # noqa: PTH207
            missing = "no such file or folder, and as a pattern it matches no file"
        if not matches:
            raise FileNotFoundError(f"{source}: {missing}")
        found |= dict.fromkeys(sorted(matches))
    return list(found)


def read_image(path: Path | str) -> NDArray[np.uint8]:
    """Return an image's pixels [H, W, 3]: upright as its EXIF says, on white where it is transparent.

    Grey and 16-bit images become RGB; of an animation the first frame counts.
    Raises: UnreadableImageError with the reason.
    """
    try:
        with Image.open(path, formats=FORMATS) as image:
            return np.array(_as_rgb(ImageOps.exif_transpose(image)))
    except UnidentifiedImageError as error:
        raise UnreadableImageError(f"no image of a format known here ({', '.join(FORMATS)})") from error
    # Pillow's readers raise all of these on broken files.
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UnreadableImageError(f"the image cannot be read: {error}") from error


def _as_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        # Pillow would cut off at 255; what is brighter than that has 16 bits.
        value_HW = np.asarray(image, np.float64)
        highest = 65535 if value_HW.max(initial=0) > 255 else 255
        image = Image.fromarray((value_HW * (255 / highest)).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return image.convert("RGB")
