"""From JPEG bytes to an augmented image tensor, as a function of the bytes and a generator only."""

from __future__ import annotations

import io
import math
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import interpolate

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
        image_CHW = decode(data)
        if config.kind == "crop":
            image_CHW = random_resized_crop(image_CHW, size, config.crop_scale, generator)
        else:
            image_CHW = centre_crop(image_CHW, size)
        return image_CHW.flip(2) if generator.random() < 0.5 else image_CHW

    return transform


def normalise(image_BCHW: Tensor) -> Tensor:
    """Return uint8 images as floats less IMAGE_MEAN over IMAGE_STD; images that are floats already stay as they are."""
    if image_BCHW.is_floating_point():
        return image_BCHW
    mean_C11, std_C11 = (torch.tensor(values).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD))
    return image_BCHW.float().sub_(255 * mean_C11).div_(255 * std_C11)


def decode(data: bytes) -> Tensor:
    """Return the decoded RGB image, turned as its EXIF says. Shapes: -> image_CHW uint8.

    JPEG goes through OpenCV, with the very pixels that Pillow gives but sooner; CMYK and other formats through Pillow.

    Raises: UndecodableError.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.width * image.height > MAX_PIXELS:
            raise UndecodableError(f"{image.width} x {image.height} pixels, more than {MAX_PIXELS}")
        if image.format == "JPEG" and image.mode in ("RGB", "L"):
            pixels_HWC = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            if pixels_HWC is None:
                raise UndecodableError("truncated or corrupt JPEG")
        else:
            pixels_HWC = np.array(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:  # what Pillow raises on broken files
        raise UndecodableError(str(error)) from error
    return torch.from_numpy(pixels_HWC).permute(2, 0, 1)


def random_resized_crop(
    image_CHW: Tensor, size: int, scale: tuple[float, float], generator: np.random.Generator
) -> Tensor:
    """Return a random part of the image (a share of its area, aspect 3/4 to 4/3) as size x size pixels."""
    height, width = image_CHW.shape[1:]
    for _ in range(10):
        area = width * height * generator.uniform(*scale)
        aspect = math.exp(generator.uniform(math.log(3 / 4), math.log(4 / 3)))
        crop_width, crop_height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < crop_width <= width and 0 < crop_height <= height:
            left = int(generator.integers(width - crop_width + 1))
            top = int(generator.integers(height - crop_height + 1))
            return _resized(image_CHW[:, top : top + crop_height, left : left + crop_width], size)
    return centre_crop(image_CHW, size)


def centre_crop(image_CHW: Tensor, size: int) -> Tensor:
    """Return the largest centred square of the image as size x size pixels."""
    height, width = image_CHW.shape[1:]
    side = min(height, width)
    left, top = (width - side) // 2, (height - side) // 2
    return _resized(image_CHW[:, top : top + side, left : left + side], size)


def _resized(image_CHW: Tensor, size: int) -> Tensor:
    # Bicubic with antialiasing on bytes: what Pillow does, but for the last step of a value, in a third of the time.
    if image_CHW.shape[1:] == (size, size):
        return image_CHW
    channels_last_1CHW = image_CHW[None].contiguous(memory_format=torch.channels_last)  # the layout of a picture stays
    return interpolate(channels_last_1CHW, (size, size), mode="bicubic", antialias=True)[0]


def _deit(config: AugmentConfig, size: int) -> Transform:
    from timm.data.transforms_factory import create_transform

    # Crop and flip are ours, like those of the other kinds; timm's first step would do the same by Pillow, slower.
    _, randaugment, to_tensor_and_erase = create_transform(
        size,
        is_training=True,
        auto_augment="rand-m9-mstd0.5-inc1",
        re_prob=0.25,
        re_mode="pixel",
        interpolation="bicubic",
        mean=IMAGE_MEAN,
        std=IMAGE_STD,
        separate=True,
    )

    def transform(data: bytes, generator: np.random.Generator) -> Tensor:
        image_CHW = random_resized_crop(decode(data), size, config.crop_scale, generator)
        image_CHW = image_CHW.flip(2) if generator.random() < 0.5 else image_CHW
        image = Image.fromarray(image_CHW.permute(1, 2, 0).numpy())
        with _global_generators_seeded(int(generator.integers(2**32))):
            augmented_CHW: Tensor = to_tensor_and_erase(randaugment(image))
        return augmented_CHW

    return transform


@contextmanager
def _global_generators_seeded(seed: int) -> Iterator[None]:
    # timm and torchvision draw from the process's generators. Only loader processes come here (TrainConfig sees to it).
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)  # torch.manual_seed asks every kind of device, a tenth of a millisecond
    yield
