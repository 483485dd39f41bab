from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from curation.fetch import FetchError
from curation.image_bytes import checked, perceptual_hash


def _image() -> Image.Image:
    return Image.radial_gradient("L").resize((60, 40)).convert("RGB")


def _bytes(image: Image.Image, kind: str, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF", "GIF", "BMP"])
def test_usual_files_stay_as_they_came(kind: str) -> None:
    content = _bytes(_image(), kind)
    assert checked(content, 2400) is content


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "AVIF"])
def test_orientation_of_exif_is_applied(kind: str) -> None:
    image = Image.new("RGB", (60, 40), "blue")
    image.paste("red", (0, 0, 30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: its top left is the top right
    upright = Image.open(io.BytesIO(checked(_bytes(image, kind, exif=exif), 2400)))
    assert upright.size == (40, 60)
    corners = [upright.convert("RGB").getpixel(place) for place in ((38, 2), (2, 2), (38, 58))]
    assert [corner[0] > 200 for corner in corners] == [True, False, False]  # type: ignore[index]
    assert upright.getexif().get(0x0112, 1) == 1


def test_16_bits_become_8_and_not_white() -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 2400).astype(np.uint16).reshape(40, 60))
    shown = np.asarray(Image.open(io.BytesIO(checked(_bytes(deep, "PNG"), 2400))))
    assert shown.dtype == np.uint8
    assert abs(float(shown.mean()) - 127.5) < 1


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (b"", "not_an_image: empty"),
        (b"<svg/>", "not_an_image: begins with b'<svg/>'"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not_an_image: begins with b'%!PS"),
        (_bytes(_image(), "JPEG"), "too_many_pixels: 60 x 40"),
    ],
)
def test_what_is_no_image_within_the_limits_is_refused(content: bytes, cause: str) -> None:
    with pytest.raises(FetchError) as refused:
        checked(content, 2399)
    assert str(refused.value).startswith(cause)


def test_hashes_of_copies_are_near_and_of_others_far() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (2, 12, 16), np.uint8)
    image, other = (Image.fromarray(values).resize((320, 240), Image.Resampling.BICUBIC) for values in noise)
    copy = Image.open(io.BytesIO(_bytes(image.resize((160, 120)), "JPEG", quality=70)))
    assert (perceptual_hash(image) ^ perceptual_hash(copy)).bit_count() <= 4
    assert (perceptual_hash(image) ^ perceptual_hash(other)).bit_count() > 10
