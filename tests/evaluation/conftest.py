"""A model whose groups and words are known exactly, and a small benchmark drawn for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad

COLOURS = {"grass": (0, 160, 0), "cat": (250, 0, 0), "dog": (0, 0, 250), "bus": (250, 250, 0)}
NAMES = list(COLOURS)


class OracleModel(nn.Module):
    """Sees the colour of a patch, makes one group of each colour, and knows the word of each colour.

    Embeddings are one-hot over NAMES, so every cosine is 0 or 1 and every answer can be told by hand. Patches of one
    pixel keep masks exact; larger ones are rounded at their corners on the way back to pixels.
    """

    def __init__(self, patch_size: int = 1, confused: bool = False) -> None:
        super().__init__()
        self.config = SimpleNamespace(image=SimpleNamespace(patch_size=patch_size), embedding_width=len(NAMES))
        self.behaviour = "default"
        self.shift = nn.Parameter(torch.tensor(int(confused)), requires_grad=False)
        self.logit_scale = nn.Parameter(torch.zeros(()))
        self.passes = 0

    def _kinds(self, image_BCHW: Tensor) -> Tensor:
        # Kind of each patch, by the colour at its middle.
        mean, std = (torch.tensor(values).view(3, 1, 1) for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
        colour_KC = torch.tensor(list(COLOURS.values())).float()
        side = self.config.image.patch_size
        bottom, right = (-length % side for length in image_BCHW.shape[-2:])
        image_BCHW = pad(image_BCHW, (0, right, 0, bottom), mode="replicate")
        seen_BNC = ((image_BCHW * std + mean) * 255)[..., side // 2 :: side, side // 2 :: side].flatten(2).mT
        return (seen_BNC[:, :, None] - colour_KC).square().sum(-1).argmin(-1)

    def encode_image(self, image_BCHW: Tensor) -> SimpleNamespace:
        self.passes += 1
        kind_BN = self._kinds(image_BCHW)
        named_GE = one_hot((torch.arange(len(NAMES)) + self.shift) % len(NAMES), len(NAMES)).float()
        soft_BGN = one_hot(kind_BN, len(NAMES)).mT.float()
        group_BGE = named_GE.expand(len(image_BCHW), -1, -1)
        present_BG1 = soft_BGN.mean(-1, keepdim=True)
        return SimpleNamespace(
            embedding_BE=(group_BGE * present_BG1).sum(1),
            group_embedding_BGE=group_BGE,
            assignment=SimpleNamespace(soft_BGN=soft_BGN),
            grid=self.grid(image_BCHW),
        )

    def grid(self, image_BCHW: Tensor) -> tuple[int, int]:
        rows, columns = (-(-length // self.config.image.patch_size) for length in image_BCHW.shape[-2:])
        return rows, columns

    def scale(self) -> float:
        return 100.0

    def patch_embedding(self, image_BCHW: Tensor) -> Tensor:
        return one_hot((self._kinds(image_BCHW) + self.shift) % len(NAMES), len(NAMES)).float()

    def tokenize(self, texts: list[str]) -> list[str]:
        return texts

    def encode_text(self, texts: list[str]) -> SimpleNamespace:
        rows = [[float(name in text.split()) for name in NAMES] for text in (text.strip(".") for text in texts)]
        return SimpleNamespace(embedding_BE=torch.tensor(rows))


def paint(truth_HW: np.ndarray) -> np.ndarray:
    """Return the picture whose patches have the colours of a map of positions in NAMES; 255 is painted as grass."""
    table = np.array(list(COLOURS.values()), np.uint8)
    return table[np.where(truth_HW == 255, 0, truth_HW)]


@pytest.fixture
def oracle_model() -> OracleModel:
    return OracleModel()


@pytest.fixture
def patchy_model() -> OracleModel:
    """The same with patches of 4 x 4 pixels."""
    return OracleModel(patch_size=4)


@pytest.fixture
def confused_model() -> OracleModel:
    """Every group carries the name of the next kind."""
    return OracleModel(confused=True)


@pytest.fixture
def scene() -> np.ndarray:
    """A truth of 32 x 48 pixels: grass (background), a cat of 8 x 12, a bus of 8 x 8, aligned to patches."""
    truth_HW = np.zeros((32, 48), np.uint8)
    truth_HW[8:16, 4:16] = 1
    truth_HW[16:24, 32:40] = 3
    return truth_HW


@pytest.fixture
def as_batch() -> Callable[[np.ndarray], Tensor]:
    """Paint a truth as an image_BCHW of uint8."""
    return lambda truth_HW: torch.from_numpy(paint(truth_HW)).permute(2, 0, 1)[None]


@pytest.fixture
def write_benchmark() -> Callable[..., Path]:
    """Write truths as a benchmark folder in VOC layout; PNG bytes under the name .jpg keep colours exact."""

    def write(root: Path, truths: list[np.ndarray], classes: list[str] | None = None) -> Path:
        for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
            (root / folder).mkdir(parents=True)
        for number, truth_HW in enumerate(truths):
            Image.fromarray(paint(truth_HW)).save(root / "JPEGImages" / f"{number:03d}.jpg", "png")
            Image.fromarray(truth_HW).save(root / "SegmentationClass" / f"{number:03d}.png")
        names = [f"{number:03d}" for number in range(len(truths))]
        (root / "ImageSets/Segmentation/val.txt").write_text("\n".join(names) + "\n")
        (root / "classes.txt").write_text("\n".join(classes or ["background", "cat", "dog", "bus"]) + "\n")
        return root

    return write
