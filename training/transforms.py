"""From JPEG bytes to an augmented image tensor, as a function of the bytes and a generator only."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from model.config import IMAGE_MEAN, IMAGE_STD
from training.config import AugmentConfig

Transform = Callable[[bytes, np.random.Generator], Tensor]
"""(JPEG bytes, generator) -> image_CHW, uint8, or float32 already normalised. Raises: UndecodableError."""

MAX_PIXELS = 64_000_000
"""Images of more pixels count as undecodable: shards hold resized images, so such a header is a lie."""


class UndecodableError(ValueError):
    """The bytes are no whole image of at most MAX_PIXELS."""


def build_transform(config: AugmentConfig, size: int) -> Transform:
    """Return the training transform to size x size pixels."""
    if config.kind == "deit":
        return _deit(config, size)

    def transform(data: bytes, generator: np.random.Generator) -> Tensor:
        image = decode(data)
        if config.kind == "crop":
            image = random_resized_crop(image, size, config.crop_scale, generator)
        else:
            image = centre_crop(image, size)
        pixels_HWC = np.asarray(image)
        if generator.random() < 0.5:
            pixels_HWC = pixels_HWC[:, ::-1]
        return torch.from_numpy(np.ascontiguousarray(pixels_HWC.transpose(2, 0, 1)))

    return transform


def normalise(image_BCHW: Tensor) -> Tensor:
    """Return uint8 images as floats less IMAGE_MEAN over IMAGE_STD; images that are floats already stay as they are."""
    if image_BCHW.is_floating_point():
        return image_BCHW
    mean_C11, std_C11 = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return image_BCHW.float().sub_(255 * mean_C11).div_(255 * std_C11)


def decode(data: bytes) -> Image.Image:
    """Return the decoded RGB image.

    Raises: UndecodableError.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise UndecodableError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        return image.convert("RGB")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises on broken files
        raise UndecodableError(str(error)) from error


def random_resized_crop(
    image: Image.Image, size: int, scale: tuple[float, float], generator: np.random.Generator
) -> Image.Image:
    """Return a random part of the image (a share of its area, aspect 3/4 to 4/3) as size x size pixels."""
    width, height = image.size
    for _ in range(10):
        area = width * height * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(generator.integers(width - crop_width + 1))
            top = int(generator.integers(height - crop_height + 1))
            box = (left, top, left + crop_width, top + crop_height)
            return image.resize((size, size), Image.Resampling.BICUBIC, box=box)
    return centre_crop(image, size)


def centre_crop(image: Image.Image, size: int) -> Image.Image:
    """Return the largest centred square of the image as size x size pixels."""
    if image.size == (size, size):
        return image
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.resize((size, size), Image.Resampling.BICUBIC, box=(left, top, left + side, top + side))


def _deit(config: AugmentConfig, size: int) -> Transform:
    from timm.data.transforms_factory import create_transform

    timm_transform: Any = create_transform(
        size,
        is_training=True,
        scale=config.crop_scale,
        auto_augment="rand-m9-mstd0.5-inc1",
        re_prob=0.25,
        re_mode="pixel",
        interpolation="bicubic",
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
    )

    def transform(data: bytes, generator: np.random.Generator) -> Tensor:
        image = decode(data)
        with _global_generators_seeded(int(generator.integers(2**32))):
            image_CHW: Tensor = timm_transform(image)
        return image_CHW

    return transform


@contextmanager
def _global_generators_seeded(seed: int) -> Iterator[None]:
    # timm and torchvision draw from the process's generators. Only loader processes come here (TrainConfig sees to it).
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
    yield
