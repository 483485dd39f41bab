"""Zero-shot classification of whole images, as on ImageNet: is the true name among the nearest?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate, normalize
from tqdm import tqdm

from evaluation.atomic import write_json
from evaluation.benchmarks import CLASSES_DIR, FOLDER_CLASSES, IMAGE_ENDINGS, read_classes, read_rgb
from evaluation.prompts import embed_names
from evaluation.segment import normalised
from evaluation.templates import TemplateSet, check_templates
from model import OVSegmentor

RESULT = "classification.json"
IMAGENET_CLASSES = CLASSES_DIR / "imagenet_1000.txt"


@dataclass(frozen=True)
class ClassificationConfig:
    """How images are shown, and how names are asked for."""

    shorter_side: int = 256
    """shorter side to which an image is resized, in pixels"""
    crop: int = 224
    """side of the square in its middle that the model sees, in pixels"""
    templates: TemplateSet | tuple[str, ...] = "subset_7"
    """sentences around a class name, or the name of a set of them; the release takes the seven"""
    batch_size: int = 64
    """images that go through the encoder together"""

    def __post_init__(self) -> None:
        for name in ("crop", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.shorter_side < self.crop:
            raise ValueError(f"shorter_side = {self.shorter_side}: must be at least crop = {self.crop}")
        check_templates("templates", self.templates)


@dataclass(frozen=True)
class ClassFolders:
    """Images in a folder per class, as torchvision's ImageFolder has them."""

    root: Path
    """the folder of the classes' folders"""
    classes: tuple[str, ...]
    """names of the classes; names may repeat (ImageNet has two kinds of missile)"""
    images: tuple[Path, ...]
    """file of each image"""
    label_N: NDArray[np.int64]
    """class of each image"""


def open_class_folders(root: Path, names: Path | None = None) -> ClassFolders:
    """Return the images below `root` (or `root`/val), their classes being the folders in the order of their names.

    Names come from the file `names`, from classes.txt beside the folders, or, for 1,000 folders called by WordNet ids
    (n01440764), from ImageNet's list.
    Raises: FileNotFoundError or ValueError that says what was looked for and what was found.
    """
    if not root.is_dir():
        raise FileNotFoundError(f"{root}: no such folder; expected a folder with a folder of images per class")
    top = root / "val" if (root / "val").is_dir() else root
    folders = sorted(path for path in top.iterdir() if path.is_dir())
    if not folders:
        found = ", ".join(sorted(path.name for path in top.iterdir())[:5]) or "nothing"
        raise FileNotFoundError(
            f"{top}: no folder per class (n01440764/, ...) found, but {found}; sort images into one folder per class"
        )
    listed = next(
        (path for path in (names, root / FOLDER_CLASSES, top / FOLDER_CLASSES) if path and path.exists()), None
    )
    if names is not None and listed != names:
        raise FileNotFoundError(f"{names}: no such file; expected a class name per line")
    if listed is None and len(folders) == 1000 and all(folder.name.startswith("n0") for folder in folders[:10]):
        listed = IMAGENET_CLASSES
    if listed is None:
        raise FileNotFoundError(
            f"{top}: {len(folders)} folders, but no {FOLDER_CLASSES} that names them; write one, a name per line "
            f"in the order of the folders, or pass a list"
        )
    classes = read_classes(listed)
    if len(classes) != len(folders):
        raise ValueError(f"{listed}: {len(classes)} names for {len(folders)} folders in {top}; they must be as many")
    images = [
        (path, label)
        for label, folder in enumerate(folders)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in IMAGE_ENDINGS
    ]
    if not images:
        raise FileNotFoundError(f"{top}: {len(folders)} folders without an image ({', '.join(IMAGE_ENDINGS)})")
    paths, labels = zip(*images, strict=True)
    return ClassFolders(top, classes, paths, np.array(labels))


def classify(
    models: Mapping[str, Path | OVSegmentor],
    root: Path,
    out_dir: Path,
    config: ClassificationConfig | None = None,
    *,
    names: Path | None = None,
    device: str | None = None,
) -> dict[str, Any]:
    """Return top-1 and top-5 accuracy of models, and write them to out_dir/classification.json.

    Raises: ValueError that names an image that cannot be decoded; else see open_class_folders.
    """
    config = config or ClassificationConfig()
    images = open_class_folders(root, names)
    results = []
    for name, given in models.items():
        model = OVSegmentor.from_pretrained(given) if isinstance(given, Path) else given
        model = model.to(device or ("cuda" if torch.cuda.is_available() else "cpu")).eval()
        rank_N = _ranks(model, images, config)
        results.append(
            {
                "name": name,
                "top1": float((rank_N < 1).mean()),
                "top5": float((rank_N < 5).mean()),
                "per_class_top1": _per_class(rank_N < 1, images),
            }
        )
    result: dict[str, Any] = {
        "benchmark": {"name": "imagenet", "title": "ImageNet, zero-shot classification", "images": len(images.images)},
        "classes": list(images.classes),
        "config": asdict(config),
        "results": results,
    }
    write_json(out_dir / RESULT, result)
    return result


def rank_of_truth(score_BC: Tensor, label_B: Tensor) -> Tensor:
    """Return how many classes come before the true one: those with more, and of equals those earlier in the list.

    Shapes: score_BC [B, C], label_B [B] -> [B].
    """
    true_B1 = score_BC.gather(1, label_B[:, None])
    is_earlier_BC = torch.arange(score_BC.shape[1], device=score_BC.device) < label_B[:, None]
    return ((score_BC > true_B1) | ((score_BC == true_B1) & is_earlier_BC)).sum(1)


@torch.inference_mode()
def _ranks(model: OVSegmentor, images: ClassFolders, config: ClassificationConfig) -> NDArray[np.int64]:
    # Equal names get equal vectors, and so equal scores: each is embedded once.
    distinct = list(dict.fromkeys(images.classes))
    vector_DE = embed_names(model, distinct, config.templates)
    name_CE = vector_DE[[distinct.index(name) for name in images.classes]]
    rank_N = np.empty(len(images.images), np.int64)
    for batch, image_BCHW in _batches(images, config):
        embedding_BE = model.encode_image(normalised(image_BCHW.to(name_CE.device))).embedding_BE
        score_BC = normalize(embedding_BE, dim=-1) @ name_CE.T
        label_B = torch.from_numpy(images.label_N[batch]).to(name_CE.device)
        rank_N[batch] = rank_of_truth(score_BC, label_B).cpu().numpy()
    return rank_N


def _batches(images: ClassFolders, config: ClassificationConfig) -> Iterator[tuple[slice, Tensor]]:
    starts = range(0, len(images.images), config.batch_size)
    for start in tqdm(starts, desc="classify", unit="batch", disable=None):
        batch = slice(start, start + config.batch_size)
        shown = [
            middle(torch.from_numpy(read_rgb(path)).permute(2, 0, 1), config.shorter_side, config.crop)
            for path in images.images[batch]
        ]
        yield batch, torch.stack(shown)


def middle(image_CHW: Tensor, shorter_side: int, crop: int) -> Tensor:
    """Return the middle square of the resized image. Shapes: [3, H, W] uint8 -> [3, crop, crop] uint8."""
    scale = shorter_side / min(image_CHW.shape[-2:])
    height, width = (max(crop, round(side * scale)) for side in image_CHW.shape[-2:])
    image_CHW = interpolate(image_CHW[None], (height, width), mode="bicubic", antialias=True)[0]
    top, left = (height - crop) // 2, (width - crop) // 2
    return image_CHW[:, top : top + crop, left : left + crop]


def _per_class(is_right_N: NDArray[np.bool_], images: ClassFolders) -> list[dict[str, Any]]:
    """Return accuracy and number of images of each class, in the order of the classes (names may repeat)."""
    rows = []
    for label, name in enumerate(images.classes):
        mine_N = images.label_N == label
        rows.append({"name": name, "images": int(mine_N.sum()), "top1": _share(is_right_N[mine_N])})
    return rows


def _share(is_right_N: NDArray[np.bool_]) -> float | None:
    return float(is_right_N.mean()) if is_right_N.size else None
