from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn.functional import normalize

from model import ModelConfig, OVSegmentor
from model.embed import Embedder

CAPTIONS = [["a cat on the grass"], ["a dog", "a small dog near the red water and a bird"], [], ["two people"]]


@pytest.fixture
def model(small_config: ModelConfig, make_model: Callable[..., OVSegmentor], tmp_path: Path) -> OVSegmentor:
    made = make_model(small_config).eval()
    made.save_pretrained(tmp_path / "model")
    return made


def _png(colour: tuple[int, int, int], size: tuple[int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_captions_of_an_image_are_averaged_whatever_the_batch(
    model: OVSegmentor, tmp_path: Path, batch_size: int
) -> None:
    found = Embedder(tmp_path / "model", "cpu", batch_size).captions(CAPTIONS)
    with torch.no_grad():
        plain = [
            torch.stack([normalize(model.encode_text(model.tokenize([text])).embedding_BE)[0] for text in texts]).mean(
                0
            )
            if texts
            else torch.zeros(model.config.embedding_width)
            for texts in CAPTIONS
        ]
    assert np.allclose(found, normalize(torch.stack(plain)).numpy(), atol=1e-5)
    assert not found[2].any()


def test_images_are_seen_as_the_model_sees_them_and_broken_ones_are_zero(model: OVSegmentor, tmp_path: Path) -> None:
    size = model.config.image.image_size
    contents = [_png((250, 10, 10), (size, size)), b"no image", _png((10, 10, 250), (3 * size, 2 * size))]
    found = Embedder(tmp_path / "model", "cpu", batch_size=2).images(contents)
    assert not found[1].any()
    mean, std = (np.array(values, np.float32) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    for row, colour in ((0, (250, 10, 10)), (2, (10, 10, 250))):
        pixel = torch.from_numpy((np.array(colour, np.float32) / 255 - mean) / std)
        with torch.no_grad():
            plain = model.encode_image(pixel.view(1, 3, 1, 1).expand(1, 3, size, size)).embedding_BE
        assert np.allclose(found[row], normalize(plain)[0].numpy(), atol=1e-5)


def test_a_folder_without_a_model_and_an_empty_batch_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="found no model"):
        Embedder(tmp_path)
    with pytest.raises(ValueError, match="batch_size = 0: expected at least 1"):
        Embedder(tmp_path, batch_size=0)
