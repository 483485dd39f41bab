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
CLASSES_DIR = Path(__file__).parent / "classes"
FOLDER_CLASSES = "classes.txt"
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png", ".webp")
# COCO numbers its 182 things and stuffs from 0 here; these eleven things were never annotated.
COCO_STUFF_ABSENT = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
OUTSIDE = -1
"""in a table of labels: a value that no mask of the benchmark may hold"""


@dataclass(frozen=True)
class Layout:
    """Where a benchmark's folder keeps its files."""

    images: str
    """folder of the images"""
    masks: str
    """folder of the index masks, PNG files with the images' names"""
    list: str | None = None
    """file with an image name per line, without ending; None takes every mask's"""


VOC = Layout("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt")
CONTEXT = Layout("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext/val.txt")
COCO_STUFF = Layout("images/val2017", "annotations/val2017")
ADE20K = Layout("images/validation", "annotations/validation")
FOLDER = Layout("images", "masks")


@dataclass(frozen=True)
class LabelledImages:
    """The images of a benchmark, with index masks, read one at a time."""

    root: Path
    """the benchmark's folder"""
    names: tuple[str, ...]
    """file names without ending, in the order of the list"""
    images: tuple[Path, ...]
    """file of each image"""
    masks: tuple[Path, ...]
    """file of each mask"""
    classes: tuple[str, ...]
    """names of the classes; a label is a position in it"""
    label_V: NDArray[np.int16]
    """label of each of the 256 values of a mask: a class, IGNORE or OUTSIDE"""

    def __len__(self) -> int:
        return len(self.names)

    def read(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image_HWC and truth_HW.

        Raises: ValueError when the mask is no index picture, has another size, or has values outside the benchmark's.
        """
        path = self.masks[position]
        image_HWC = np.asarray(Image.open(self.images[position]).convert("RGB"))
        mask = Image.open(path)
        if mask.mode not in ("P", "L"):
            raise ValueError(f"{path}: a picture of mode {mask.mode}; a mask holds one label per pixel (mode P or L)")
        value_HW = np.asarray(mask)
        if value_HW.shape != image_HWC.shape[:2]:
            raise ValueError(f"{path}: {_size(value_HW)} pixels, but its image has {_size(image_HWC)}")
        label_HW = self.label_V[value_HW]
        if (label_HW == OUTSIDE).any():
            outside = [int(value) for value in np.unique(value_HW[label_HW == OUTSIDE])]
            last = int(np.flatnonzero((self.label_V != OUTSIDE) & (self.label_V != IGNORE))[-1])
            raise ValueError(
                f"{path}: labels {outside} are outside the {len(self.classes)} classes "
                f"(values up to {last}, {IGNORE} is ignored); is the list of classes the right one?"
            )
        return image_HWC, label_HW.astype(np.uint8)


@dataclass(frozen=True)
class Benchmark:
    """A kind of benchmark folder."""

    title: str
    """name for people"""
    layout: Layout
    """where its files lie"""
    classes: tuple[str, ...] | None
    """names of the classes by label; None reads them from classes.txt in the folder, one per line"""
    values: tuple[int, ...] | None = None
    """value of each class in a mask; None: its position"""
    void: tuple[int, ...] = ()
    """further values of a mask that count nowhere"""

    def open(self, root: Path) -> LabelledImages:
        """Return the images of the folder, after a look that every file is there.

        Raises: FileNotFoundError that says what was looked for and what was found.
        """
        layout = self.layout
        wanted = [name for name in (layout.images, layout.masks, layout.list) if name is not None]
        wanted += [FOLDER_CLASSES] if self.classes is None else []
        if missing := [name for name in wanted if not (root / name).exists()]:
            found = sorted(path.name for path in root.iterdir()) if root.is_dir() else ["no such folder"]
            raise FileNotFoundError(
                f"{root}: not a folder of {self.title}: looked for {', '.join(wanted)}; "
                f"missing: {', '.join(missing)}; found: {', '.join(found) or 'nothing'}"
            )
        source = root / (layout.list or layout.masks)
        names = _listed(source)
        if not names:
            raise ValueError(f"{source}: empty; expected image names, one per line without ending, or PNG masks")
        masks = tuple(root / layout.masks / f"{name}.png" for name in names)
        images = tuple(_image_of(root / layout.images / name) for name in names)
        for kind, paths in (("image", images), ("mask", masks)):
            if absent := [path for path in paths if not path.exists()]:
                raise FileNotFoundError(
                    f"{source} lists {len(names)} images, but {len(absent)} have no {kind}, the first: {absent[0]}"
                )
        classes = self.classes or read_classes(root / FOLDER_CLASSES)
        return LabelledImages(root, names, images, masks, classes, self._labels(classes))

    def _labels(self, classes: tuple[str, ...]) -> NDArray[np.int16]:
        label_V = np.full(256, OUTSIDE, np.int16)
        label_V[[*self.void, IGNORE]] = IGNORE
        label_V[list(self.values or range(len(classes)))] = np.arange(len(classes))
        return label_V


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the names of a list of classes, one per line; empty lines and blanks around names do not count."""
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


_CONTEXT_CLASSES = read_classes(CLASSES_DIR / "pascal_context_60.txt")
BENCHMARKS: dict[str, Benchmark] = {
    "voc": Benchmark("PASCAL VOC 2012", VOC, VOC_CLASSES),
    "context": Benchmark("PASCAL Context", CONTEXT, _CONTEXT_CLASSES),
    "context59": Benchmark(
        "PASCAL Context without background", CONTEXT, _CONTEXT_CLASSES[1:], tuple(range(1, 60)), void=(0,)
    ),
    "coco_stuff": Benchmark(
        "COCO-Stuff 164k",
        COCO_STUFF,
        read_classes(CLASSES_DIR / "coco_stuff_171.txt"),
        tuple(value for value in range(182) if value not in COCO_STUFF_ABSENT),
    ),
    "ade20k": Benchmark(
        "ADE20K", ADE20K, read_classes(CLASSES_DIR / "ade20k_150.txt"), tuple(range(1, 151)), void=(0,)
    ),
    "folder": Benchmark("a folder of images and masks", FOLDER, None),
    "scenes": Benchmark("drawn scenes", VOC, None),
}
"""Class names are those that the release asks for (its configs); COCO-Stuff's absent things are COCO's own gaps."""


def get_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name; an unknown name raises ValueError that lists the known ones."""
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark '{name}' is unknown; known are {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name]


def _listed(source: Path) -> tuple[str, ...]:
    if source.is_file():
        return tuple(source.read_text().split())
    return tuple(sorted(path.stem for path in source.glob("*.png")))


def _image_of(stem: Path) -> Path:
    """Return the image with this path but for its ending; where there is none, the first that was looked for."""
    candidates = [stem.with_name(f"{stem.name}{ending}") for ending in IMAGE_ENDINGS]
    return next((path for path in candidates if path.exists()), candidates[0])


def _size(array: NDArray[np.generic]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
