"""Masks of COCO's things, drawn from its instance annotations."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class InstanceMask:
    """The mask of one image, kept as the polygons and run lengths of its instances."""

    path: Path
    """the file of annotations"""
    image: str
    """file name of the image"""
    size: tuple[int, int]
    """height and width"""
    instances: tuple[tuple[int, Any], ...]
    """label and segmentation of each instance, in the order of the file"""

    def draw(self) -> NDArray[np.uint8]:
        """Return the label of every pixel: 0 is background, thing k of COCO's list is k + 1. Shapes: [H, W]."""
        label_HW = np.zeros(self.size, np.uint8)
        for label, segmentation in self.instances:
            label_HW[_decoded(segmentation, self.size)] = label
        return label_HW


def read_instances(path: Path, classes: tuple[str, ...]) -> list[InstanceMask]:
    """Return the masks of all images of a file of annotations, in the order of the images' numbers.

    `classes` are background and the things. Where instances overlap, the later one of the file is on top, and a crowd
    counts as its thing: so COCO-Stuff's pixel maps were drawn, from which GroupViT's converter takes the same classes.
    What these leave unlabelled (void) is background here: instances do not tell the two apart.
    Raises: ValueError when the file's categories are not those classes in that order.
    """
    content = json.loads(path.read_text())
    categories = sorted(content["categories"], key=lambda category: category["id"])
    names = tuple(category["name"] for category in categories)
    if names != classes[1:]:
        raise ValueError(
            f"{path}: its {len(names)} categories ({', '.join(names[:3])}, ...) are not the {len(classes) - 1} things "
            f"expected ({', '.join(classes[1:4])}, ...)"
        )
    label = {category["id"]: number for number, category in enumerate(categories, 1)}
    of_image: dict[int, list[dict[str, Any]]] = {image["id"]: [] for image in content["images"]}
    for annotation in content["annotations"]:
        of_image[annotation["image_id"]].append(annotation)
    masks = []
    for image in sorted(content["images"], key=lambda image: image["id"]):
        instances = tuple((label[one["category_id"]], one["segmentation"]) for one in of_image[image["id"]])
        masks.append(InstanceMask(path, image["file_name"], (image["height"], image["width"]), instances))
    return masks


def _decoded(segmentation: Any, size: tuple[int, int]) -> NDArray[np.bool_]:
    """Return the pixels of an instance: polygons, run lengths, or run lengths packed as text."""
    # Here alone, so that other benchmarks are measured where pycocotools is not installed.
    from pycocotools import mask as rle

    if isinstance(segmentation, list):
        packed = rle.merge(rle.frPyObjects(segmentation, *size))
    elif isinstance(segmentation["counts"], list):
        packed = rle.frPyObjects(segmentation, *size)
    else:
        packed = segmentation
    pixel_HW: NDArray[np.bool_] = rle.decode(packed).astype(bool)
    return pixel_HW
