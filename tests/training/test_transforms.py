import io

import numpy as np
import pytest
import torch
from PIL import Image

from training.config import AugmentConfig
from training.data import generator_of
from training.transforms import (
    IMAGE_MEAN,
    IMAGE_STD,
    UndecodableError,
    build_transform,
    centre_crop,
    decode,
    normalise,
    random_resized_crop,
)


def jpeg(width: int = 48, height: int = 32, mode: str = "RGB") -> bytes:
    ramp = np.linspace(0, 255, width * height).reshape(height, width).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(ramp).convert(mode).save(file, "JPEG")
    return file.getvalue()


@pytest.mark.parametrize("kind", ["deit", "crop", "flip"])
def test_the_same_seed_gives_the_same_image(kind: str) -> None:
    transform = build_transform(AugmentConfig(kind=kind), 16)  # type: ignore[arg-type]
    first, again, *others = (transform(jpeg(), generator_of(seed)) for seed in (1, 1, 2, 3, 4, 5, 6, 7))
    assert first.shape == (3, 16, 16)
    assert torch.equal(first, again)
    assert not all(torch.equal(first, other) for other in others)


def test_flip_alone_leaves_an_image_of_the_right_size_or_mirrors_it() -> None:
    transform = build_transform(AugmentConfig(kind="flip"), 32)
    plain = decode(jpeg(32, 32))
    drawn = [transform(jpeg(32, 32), generator_of(seed)) for seed in range(20)]
    mirrored = [torch.equal(image, plain.flip(2)) for image in drawn]
    assert all(torch.equal(image, plain) or is_flip for image, is_flip in zip(drawn, mirrored, strict=True))
    assert 0 < sum(mirrored) < 20


def test_crops_keep_the_share_of_the_area_that_the_config_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.transforms._resized", lambda image_CHW, _: image_CHW)
    place_HW = torch.arange(80 * 100).reshape(1, 80, 100)
    for seed in range(200):
        cropped = random_resized_crop(place_HW, 16, (0.4, 0.6), generator_of(seed))
        assert 0.38 < cropped.numel() / 8000 < 0.62
        assert torch.equal(cropped[0, 1:, 0] - cropped[0, :-1, 0], torch.full((cropped.shape[1] - 1,), 100))


def test_a_resized_crop_is_that_of_pillow_but_for_rounding() -> None:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (60, 90, 3), np.uint8)
    for size in (16, 48, 128):
        ours = centre_crop(torch.from_numpy(pixels_HWC).permute(2, 0, 1), size).permute(1, 2, 0).numpy()
        cropped = Image.fromarray(pixels_HWC).crop((15, 0, 75, 60))
        theirs = np.asarray(cropped.resize((size, size), Image.Resampling.BICUBIC))
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 2
        assert difference.mean() < 0.1


def test_centre_crop_takes_the_middle_square() -> None:
    image_CHW = torch.tensor([0, 0, 9, 9, 9, 9, 0, 0], dtype=torch.uint8).expand(3, 4, 8)
    assert centre_crop(image_CHW, 4).tolist() == [[[9, 9, 9, 9]] * 4] * 3


@pytest.mark.parametrize(
    ("form", "mode"),
    [("JPEG", "RGB"), ("JPEG", "L"), ("JPEG", "CMYK"), ("PNG", "RGB"), ("PNG", "L"), ("PNG", "P"), ("WEBP", "RGB"),
     ("GIF", "RGB"), ("GIF", "L"), ("GIF", "P")],
)  # fmt: skip
def test_every_kind_of_image_is_decoded_as_pillow_does(form: str, mode: str) -> None:
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (24, 40, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).convert(mode).save(file, form)
    assert Image.open(file).mode in (mode, "P")  # a GIF holds a palette whatever it was made of
    found = decode(file.getvalue()).permute(1, 2, 0).numpy()
    assert found.tolist() == np.asarray(Image.open(file).convert("RGB")).tolist()


@pytest.mark.parametrize("form", ["JPEG", "PNG"])
def test_images_are_turned_as_their_exif_says(form: str) -> None:
    pixels_HWC = np.zeros((16, 32, 3), np.uint8)
    pixels_HWC[:, 16:] = 255  # white on the right: at the bottom after a quarter turn
    exif = Image.Exif()
    exif[0x0112] = 6
    file = io.BytesIO()
    Image.fromarray(pixels_HWC).save(file, form, exif=exif)
    found = decode(file.getvalue())
    assert found.shape == (3, 32, 16)
    assert found[:, :14].max() < 20
    assert found[:, 18:].min() > 235


@pytest.mark.parametrize("data", [b"", b"<html>no image</html>", jpeg()[:200], b"\x89PNG\r\n\x1a\n" + b"x" * 40])
def test_bytes_that_are_no_whole_image_are_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode(data)


def test_a_header_of_too_many_pixels_is_undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.transforms.MAX_PIXELS", 1000)
    with pytest.raises(UndecodableError, match="48 x 32 pixels, more than 1000"):
        decode(jpeg())


def test_grey_images_become_rgb() -> None:
    image_CHW = decode(jpeg(mode="L"))
    assert image_CHW.shape == (3, 32, 48)
    assert torch.equal(image_CHW[0], image_CHW[2])


def test_normalise_is_mean_and_standard_deviation_of_values_from_0_to_1() -> None:
    image = torch.full((1, 3, 1, 1), 51, dtype=torch.uint8)
    expected = [(0.2 - mean) / std for mean, std in zip(IMAGE_MEAN, IMAGE_STD, strict=True)]
    assert normalise(image).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert normalise(image.float()) is not None
    assert torch.equal(normalise(image.float()), image.float())
