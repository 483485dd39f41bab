"""Embeddings of captions and images by a saved model, on CPU or GPU.

Shape letters: N captions or images, E embedding.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn.functional import normalize

from model.config import IMAGE_MEAN, IMAGE_STD
from model.ovsegmentor import OVSegmentor

Embeddings = NDArray[np.float32]


class Embedder:
    """A model folder's encoders. `device` is torch's name of one; None takes a GPU where there is one."""

    def __init__(self, model_dir: Path, device: str | None = None, batch_size: int = 128) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size = {batch_size}: expected at least 1")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.model = OVSegmentor.from_pretrained(model_dir).to(self.device)
        self.batch_size = batch_size

    @torch.inference_mode()
    def captions(self, captions: Sequence[Sequence[str]]) -> Embeddings:
        """Return the direction of the mean of each list of captions; zero for an empty list. Shapes: -> [N, E]."""
        owners = [owner for owner, texts in enumerate(captions) for _ in texts]
        texts = [text for each in captions for text in each]
        by_length = sorted(range(len(texts)), key=lambda number: len(texts[number]))  # little padding in a batch
        sums_NE = torch.zeros(len(captions), self.model.config.embedding_width)
        for first in range(0, len(texts), self.batch_size):
            chosen = by_length[first : first + self.batch_size]
            found_BE = self.model.encode_text(self.model.tokenize([texts[number] for number in chosen])).embedding_BE
            sums_NE.index_add_(
                0, torch.tensor([owners[number] for number in chosen]), normalize(found_BE).float().cpu()
            )
        return _directions(sums_NE)

    @torch.inference_mode()
    def images(self, images: Sequence[bytes]) -> Embeddings:
        """Return the direction of each encoded image; zero for one that cannot be decoded. Shapes: -> [N, E]."""
        found_NE = torch.zeros(len(images), self.model.config.embedding_width)
        with ThreadPoolExecutor() as pool:
            for first in range(0, len(images), self.batch_size):
                pixels = list(pool.map(self._pixels, images[first : first + self.batch_size]))
                rows = [row for row, each in enumerate(pixels) if each is not None]
                if rows:
                    image_BCHW = torch.stack([each for each in pixels if each is not None]).to(self.device)
                    embedding_BE = self.model.encode_image(_normalised(image_BCHW)).embedding_BE
                    found_NE[first + torch.tensor(rows)] = embedding_BE.float().cpu()
        return _directions(found_NE)

    def _pixels(self, content: bytes) -> Tensor | None:
        """Return the middle of an image at the model's size, uint8 [3, H, W]; None when it cannot be decoded."""
        size = self.model.config.image.image_size
        try:
            with Image.open(io.BytesIO(content)) as image:
                fitted = ImageOps.fit(image.convert("RGB"), (size, size), Image.Resampling.BICUBIC)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
        return torch.from_numpy(np.array(fitted)).permute(2, 0, 1)


def _normalised(image_BCHW: Tensor) -> Tensor:
    mean_C11, std_C11 = (
        torch.tensor(values, device=image_BCHW.device).view(3, 1, 1) for values in (IMAGE_MEAN, IMAGE_STD)
    )
    return (image_BCHW / 255 - mean_C11) / std_C11


def _directions(vectors_NE: Tensor) -> Embeddings:
    directions: Embeddings = normalize(vectors_NE).numpy()
    return directions
