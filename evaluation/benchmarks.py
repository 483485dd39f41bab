"""Benchmarks: folders of images with masks, and the names of their classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.metrics import IGNORE

# Names as the release asks for them; the official list says diningtable, pottedplant and tvmonitor.
VOC_CLASSES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "table"),
    *("dog", "horse", "motorbike", "person", "plant", "sheep", "sofa", "train", "monitor"),
)
IMAGES, MASKS, LIST = "JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt"


@dataclass(frozen=True)
class LabelledImages:
    """The images of a benchmark's list, with index masks, read one at a time."""

    root: Path
    """the benchmark's folder"""
    names: tuple[str, ...]
    """file names without ending, in the order of the list"""
    classes: tuple[str, ...]
    """names of the classes; a label is a position in it"""

    def __len__(self) -> int:
        return len(self.names)

    def image_path(self, position: int) -> Path:
        """Return the file of an image."""
        return self.root / IMAGES / f"{self.names[position]}.jpg"

    def mask_path(self, position: int) -> Path:
        """Return the file of an image's mask."""
        return self.root / MASKS / f"{self.names[position]}.png"

    def read(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image_HWC and truth_HW.

        Raises: ValueError when the mask is no index picture, has another size, or has labels outside the classes.
        """
        path = self.mask_path(position)
        image_HWC = np.asarray(Image.open(self.image_path(position)).convert("RGB"))
        mask = Image.open(path)
        if mask.mode not in ("P", "L"):
            raise ValueError(f"{path}: a picture of mode {mask.mode}; a mask holds one label per pixel (mode P or L)")
        truth_HW = np.asarray(mask)
        if truth_HW.shape != image_HWC.shape[:2]:
            raise ValueError(f"{path}: {_size(truth_HW)} pixels, but its image has {_size(image_HWC)}")
        labels = np.unique(truth_HW)
        if outside := [int(label) for label in labels if label != IGNORE and label >= len(self.classes)]:
            raise ValueError(
                f"{path}: labels {outside} are outside the {len(self.classes)} classes "
                f"(0 to {len(self.classes) - 1}, {IGNORE} is ignored); is the list of classes the right one?"
            )
        return image_HWC, truth_HW


@dataclass(frozen=True)
class Benchmark:
    """A kind of benchmark folder in the layout of PASCAL VOC."""

    title: str
    """name for people"""
    classes: tuple[str, ...] | None
    """names of the classes by label; None reads them from classes.txt in the folder, one per line"""

    def open(self, root: Path) -> LabelledImages:
        """Return the images of the folder's list, after a look that every file is there.

        Raises: FileNotFoundError that says what was looked for and what was found.
        """
        wanted = [IMAGES, MASKS, LIST] + (["classes.txt"] if self.classes is None else [])
        if missing := [name for name in wanted if not (root / name).exists()]:
            found = sorted(path.name for path in root.iterdir()) if root.is_dir() else ["no such folder"]
            raise FileNotFoundError(
                f"{root}: not a folder of {self.title}: looked for {', '.join(wanted)}; "
                f"missing: {', '.join(missing)}; found: {', '.join(found) or 'nothing'}"
            )
        names = tuple((root / LIST).read_text().split())
        if not names:
            raise ValueError(f"{root / LIST}: empty; expected one image name per line, without ending")
        images = LabelledImages(root, names, self.classes or _read_classes(root / "classes.txt"))
        for kind, path_of in (("image", images.image_path), ("mask", images.mask_path)):
            if absent := [path_of(position) for position in range(len(names)) if not path_of(position).exists()]:
                raise FileNotFoundError(
                    f"{root / LIST} lists {len(names)} images, but {len(absent)} have no {kind}, the first: {absent[0]}"
                )
        return images


BENCHMARKS: dict[str, Benchmark] = {
    "voc": Benchmark("PASCAL VOC 2012", VOC_CLASSES),
    "scenes": Benchmark("drawn scenes", None),
}


def get_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name; an unknown name raises ValueError that lists the known ones."""
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark '{name}' is unknown; known are {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name]


def _read_classes(path: Path) -> tuple[str, ...]:
    return tuple(line.strip() for line in path.read_text().splitlines() if line.strip())


def _size(array: NDArray[np.uint8]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
