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
    plain = torch.from_numpy(np.asarray(decode(jpeg(32, 32))).copy()).permute(2, 0, 1)
    drawn = [transform(jpeg(32, 32), generator_of(seed)) for seed in range(20)]
    mirrored = [torch.equal(image, plain.flip(2)) for image in drawn]
    assert all(torch.equal(image, plain) or is_flip for image, is_flip in zip(drawn, mirrored, strict=True))
    assert 0 < sum(mirrored) < 20


def test_crops_keep_the_share_of_the_area_that_the_config_names() -> None:
    class Spy:
        size = (100, 80)
        width, height = size

        def resize(self, size: object, how: object, box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:  # noqa: ARG002
            return box

    for seed in range(200):
        box: object = random_resized_crop(Spy(), 16, (0.4, 0.6), generator_of(seed))  # type: ignore[arg-type]
        left, top, right, bottom = box  # type: ignore[misc]
        assert 0 <= left < right <= 100
        assert 0 <= top < bottom <= 80
        assert 0.38 < (right - left) * (bottom - top) / 8000 < 0.62


def test_centre_crop_takes_the_middle_square() -> None:
    image = Image.fromarray(np.repeat(np.array([[0, 0, 9, 9, 9, 9, 0, 0]], np.uint8), 4, axis=0))
    assert np.asarray(centre_crop(image, 4)).tolist() == [[9, 9, 9, 9]] * 4


@pytest.mark.parametrize("data", [b"", b"<html>no image</html>", jpeg()[:200], b"\x89PNG\r\n\x1a\n" + b"x" * 40])
def test_bytes_that_are_no_whole_image_are_undecodable(data: bytes) -> None:
    with pytest.raises(UndecodableError):
        decode(data)


def test_a_header_of_too_many_pixels_is_undecodable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("training.transforms.MAX_PIXELS", 1000)
    with pytest.raises(UndecodableError, match="48 x 32 pixels, more than 1000"):
        decode(jpeg())


def test_grey_images_become_rgb() -> None:
    assert decode(jpeg(mode="L")).mode == "RGB"


def test_normalise_is_mean_and_standard_deviation_of_values_from_0_to_1() -> None:
    image = torch.full((1, 3, 1, 1), 51, dtype=torch.uint8)
    expected = [(0.2 - mean) / std for mean, std in zip(IMAGE_MEAN, IMAGE_STD, strict=True)]
    assert normalise(image).flatten().tolist() == pytest.approx(expected, abs=1e-6)
    assert normalise(image.float()) is not None
    assert torch.equal(normalise(image.float()), image.float())
