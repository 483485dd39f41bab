"""Benchmarks: folders of images with masks, and the names of their classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from evaluation.coco import InstanceMask, read_instances
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


Split = Literal["test", "training"]


@dataclass(frozen=True)
class Layout:
    """Where a benchmark's folder keeps its files."""

    images: str
    """folder of the images"""
    masks: str
    """folder of the index masks, PNG files with the images' names; or COCO's file of instances, and then its images"""
    list: str | None = None
    """file with an image name per line, without ending; None takes every mask's"""


@dataclass(frozen=True)
class Splits:
    """The images that figures are taken from, and others with masks to choose checkpoints or settings by."""

    test: Layout
    """as published: the validation sets of these benchmarks"""
    training: Layout | None = None
    """None: the benchmark has no others"""


VOC = Splits(
    Layout("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/val.txt"),
    Layout("JPEGImages", "SegmentationClass", "ImageSets/Segmentation/train.txt"),
)
CONTEXT = Splits(
    Layout("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext/val.txt"),
    Layout("JPEGImages", "SegmentationClassContext", "ImageSets/SegmentationContext/train.txt"),
)
COCO_OBJECT = Splits(
    Layout("images/val2017", "annotations/instances_val2017.json"),
    Layout("images/train2017", "annotations/instances_train2017.json"),
)
COCO_STUFF = Splits(
    Layout("images/val2017", "annotations/val2017"), Layout("images/train2017", "annotations/train2017")
)
ADE20K = Splits(
    Layout("images/validation", "annotations/validation"), Layout("images/training", "annotations/training")
)
FOLDER = Splits(Layout("images", "masks"))


@dataclass(frozen=True)
class LabelledImages:
    """The images of a benchmark, with index masks, read one at a time."""

    root: Path
    """the benchmark's folder"""
    names: tuple[str, ...]
    """file names without ending, in the order of the list"""
    images: tuple[Path, ...]
    """file of each image"""
    masks: tuple[Path | InstanceMask, ...]
    """mask of each image: an index picture, or instances to draw"""
    classes: tuple[str, ...]
    """names of the classes; a label is a position in it"""
    label_V: NDArray[np.int16]
    """label of each of the 256 values of a mask: a class, IGNORE or OUTSIDE"""
    has_voc_colours: bool = False
    """classes have the colours of VOC's palette in pictures"""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def files(self) -> list[Path]:
        """All files that are read, each once."""
        masks = (mask.path if isinstance(mask, InstanceMask) else mask for mask in self.masks)
        return list(dict.fromkeys([*self.images, *masks]))

    def size(self, position: int) -> tuple[int, int]:
        """Return height and width of an image, told by its header.

        Raises: ValueError when it is no image.
        """
        with _opened(self.images[position]) as image:
            return image.height, image.width

    def read(self, position: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return image_HWC and truth_HW.

        Raises: ValueError when the image cannot be decoded, or when the mask is no index picture, has another size, or
            has values outside the benchmark's.
        """
        mask = self.masks[position]
        image_HWC = read_rgb(self.images[position])
        if isinstance(mask, InstanceMask):
            path, value_HW = mask.path, mask.draw()
        else:
            path = mask
            with _opened(path) as picture:
                if picture.mode not in ("P", "L"):
                    raise ValueError(
                        f"{path}: a picture of mode {picture.mode}; a mask holds one label per pixel (mode P or L)"
                    )
                value_HW = _decoded(path, picture, picture.mode)
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
    splits: Splits
    """where its files lie"""
    classes: tuple[str, ...] | None
    """names of the classes by label; None reads them from classes.txt in the folder, one per line"""
    values: tuple[int, ...] | None = None
    """value of each class in a mask; None: its position"""
    void: tuple[int, ...] = ()
    """further values of a mask that count nowhere"""
    threshold: float = 0.95
    """published background threshold (NOTES 9)"""
    has_voc_colours: bool = False
    """its masks carry VOC's palette; those of ADE20K and COCO-Stuff carry none"""
    unseen: tuple[str, ...] = ()
    """classes that the zero-shot literature usually keeps from training; empty where it has no usual split"""

    def open(self, root: Path, split: Split = "test") -> LabelledImages:
        """Return the images of the folder, after a look that every file is there.

        Raises: FileNotFoundError that says what was looked for and what was found; ValueError for a split that the
        benchmark does not have.
        """
        layout = getattr(self.splits, split)
        if layout is None:
            raise ValueError(
                f"{self.title} has no split 'training', all its images belong to the figure: train without validation "
                f"(--set phase1.validation=null), or validate on another benchmark"
            )
        wanted = [name for name in (layout.images, layout.masks, layout.list) if name is not None]
        wanted += [FOLDER_CLASSES] if self.classes is None else []
        if missing := [name for name in wanted if not (root / name).exists()]:
            found = sorted(path.name for path in root.iterdir()) if root.is_dir() else ["no such folder"]
            raise FileNotFoundError(
                f"{root}: not a folder of {self.title}: looked for {', '.join(wanted)}; "
                f"missing: {', '.join(missing)}; found: {', '.join(found) or 'nothing'}"
            )
        classes = self.classes or read_classes(root / FOLDER_CLASSES)
        if len(classes) > IGNORE:
            raise ValueError(f"{root}: {len(classes)} classes, but masks of 8 bits tell at most {IGNORE} apart")
        source = root / (layout.list or layout.masks)
        names, masks = _masks(source, root / layout.masks, classes)
        if not names:
            raise ValueError(f"{source}: empty; expected image names, one per line without ending, or PNG masks")
        images = tuple(_image_of(root / layout.images / name) for name in names)
        for kind, paths in (("image", images), ("mask", masks)):
            if absent := [path for path in paths if isinstance(path, Path) and not path.exists()]:
                raise FileNotFoundError(
                    f"{source} lists {len(names)} images, but {len(absent)} have no {kind}, the first: {absent[0]}"
                )
        return LabelledImages(root, names, images, masks, classes, self._labels(classes), self.has_voc_colours)

    def _labels(self, classes: tuple[str, ...]) -> NDArray[np.int16]:
        label_V = np.full(256, OUTSIDE, np.int16)
        label_V[[*self.void, IGNORE]] = IGNORE
        label_V[list(self.values or range(len(classes)))] = np.arange(len(classes))
        return label_V


def read_classes(path: Path) -> tuple[str, ...]:
    """Return the names of a list of classes, one per line; empty lines and blanks around names do not count."""
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


_CONTEXT_CLASSES = read_classes(CLASSES_DIR / "pascal_context_60.txt")
_COCO_STUFF_CLASSES = read_classes(CLASSES_DIR / "coco_stuff_171.txt")
_CONTEXT_UNSEEN = ("cow", "motorbike", "sofa", "cat")
BENCHMARKS: dict[str, Benchmark] = {
    "voc": Benchmark(
        "PASCAL VOC 2012", VOC, VOC_CLASSES, has_voc_colours=True, unseen=("plant", "sheep", "sofa", "train", "monitor")
    ),
    "context": Benchmark(
        "PASCAL Context", CONTEXT, _CONTEXT_CLASSES, threshold=0.35, has_voc_colours=True, unseen=_CONTEXT_UNSEEN
    ),
    "context59": Benchmark(
        "PASCAL Context without background",
        CONTEXT,
        _CONTEXT_CLASSES[1:],
        tuple(range(1, 60)),
        void=(0,),
        has_voc_colours=True,
        unseen=_CONTEXT_UNSEEN,
    ),
    "coco_object": Benchmark("COCO Object", COCO_OBJECT, ("background", *_COCO_STUFF_CLASSES[:80]), threshold=0.9),
    "coco_stuff": Benchmark(
        "COCO-Stuff 164k",
        COCO_STUFF,
        _COCO_STUFF_CLASSES,
        tuple(value for value in range(182) if value not in COCO_STUFF_ABSENT),
    ),
    "ade20k": Benchmark(
        "ADE20K", ADE20K, read_classes(CLASSES_DIR / "ade20k_150.txt"), tuple(range(1, 151)), void=(0,)
    ),
    "folder": Benchmark("a folder of images and masks", FOLDER, None),
    "scenes": Benchmark("drawn scenes", VOC, None),
}
"""Class names are those that the release asks for (its configs); COCO-Stuff's absent things are COCO's own gaps.
Unseen classes: SPNet's and ZS3's splits, the first of their kind (PUBLISHED.md: the paper does not state its own)."""


def get_benchmark(name: str) -> Benchmark:
    """Return a benchmark by name; an unknown name raises ValueError that lists the known ones."""
    if name not in BENCHMARKS:
        raise ValueError(f"benchmark '{name}' is unknown; known are {', '.join(sorted(BENCHMARKS))}")
    return BENCHMARKS[name]


def _masks(
    source: Path, masks: Path, classes: tuple[str, ...]
) -> tuple[tuple[str, ...], tuple[Path | InstanceMask, ...]]:
    """Return the names of the images, and their masks."""
    if masks.suffix == ".json":
        instances = read_instances(masks, classes)
        return tuple(Path(one.image).stem for one in instances), tuple(instances)
    if source.is_file():
        names = tuple(source.read_text().split())
        if outside := [name for name in names if name.startswith("/") or ".." in name.split("/")]:
            raise ValueError(f"{source}: lists {outside[0]!r}, which leads out of its folder; expected names of images")
    else:
        names = tuple(sorted(path.stem for path in source.glob("*.png")))
    return names, tuple(masks / f"{name}.png" for name in names)


def _image_of(stem: Path) -> Path:
    """Return the image with this path but for its ending; where there is none, the first that was looked for."""
    candidates = [stem.with_name(f"{stem.name}{ending}") for ending in IMAGE_ENDINGS]
    return next((path for path in candidates if path.exists()), candidates[0])


def read_rgb(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an image as they lie in the file, where a mask lies too: not turned. Shapes: [H, W, 3].

    Raises: ValueError when it cannot be decoded.
    """
    with _opened(path) as image:
        return _decoded(path, image, "RGB")


def _opened(path: Path) -> Image.Image:
    try:
        return Image.open(path)
    except UnidentifiedImageError as error:
        raise ValueError(f"{path}: not an image that can be read") from error


def _decoded(path: Path, image: Image.Image, mode: str) -> NDArray[np.uint8]:
    try:
        return np.array(image.convert(mode))
    except (OSError, ValueError, SyntaxError) as error:  # what Pillow's readers raise on a broken file
        raise ValueError(f"{path}: broken ({error}); restore the file") from error


def _size(array: NDArray[np.generic]) -> str:
    return f"{array.shape[1]} x {array.shape[0]}"
