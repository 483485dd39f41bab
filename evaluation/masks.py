"""Masks as files: a palette PNG, run lengths in COCO's format, an overlay with its legend.

A label is 0 for background, what no word claims, and 1 + position of the word otherwise.
"""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from evaluation.pictures import colour, hexadecimal, overlay, sized_for_show, with_legend

PALETTE_WORDS = 255
"""words that a palette PNG can tell apart, beside background"""


def mask_files(
    image_HWC: NDArray[np.uint8], label_HW: NDArray[np.integer], words: Sequence[str], image_name: str
) -> dict[str, bytes]:
    """Return the files of one image's masks, ending of the name -> content; `image_name` is how COCO's file calls it.

    Shapes: image_HWC [H, W, 3], label_HW [H, W].
    """
    return {
        "-mask.png": mask_png(label_HW, len(words)),
        "-coco.json": json.dumps(coco_masks(label_HW, words, image_name), indent=1).encode(),
        "-overlay.png": overlay_png(image_HWC, label_HW, words),
    }


def mask_png(label_HW: NDArray[np.integer], num_words: int) -> bytes:
    """Return the labels as PNG, with the overlay's colours as palette; 16-bit grey for over PALETTE_WORDS words."""
    if num_words > PALETTE_WORDS:
        return _png(Image.fromarray(label_HW.astype(np.uint16)))
    picture = Image.fromarray(label_HW.astype(np.uint8), "P")
    picture.putpalette([0, 0, 0, *(channel for word in range(num_words) for channel in colour(word))])
    return _png(picture)


def coco_masks(label_HW: NDArray[np.integer], words: Sequence[str], image_name: str) -> dict[str, Any]:
    """Return a COCO dataset of one image: every word a category, an annotation for each word that is in the image.

    Masks are compressed run lengths, as pycocotools reads and writes them; a word has one mask, however many objects.
    """
    # Here alone, so that `evaluation` is imported where pycocotools is not installed.
    from pycocotools import mask as run_lengths

    height, width = label_HW.shape
    annotations: list[dict[str, Any]] = []
    for label in np.unique(label_HW[label_HW > 0]):
        encoded = run_lengths.encode(np.asfortranarray(label_HW == label, np.uint8))
        annotations.append(
            {
                "id": len(annotations) + 1,
                "image_id": 1,
                "category_id": int(label),
                "segmentation": {"size": [height, width], "counts": encoded["counts"].decode()},
                "area": int(run_lengths.area(encoded)),
                "bbox": [float(side) for side in run_lengths.toBbox(encoded)],
                "iscrowd": 0,
            }
        )
    return {
        "images": [{"id": 1, "file_name": image_name, "width": width, "height": height}],
        "categories": [{"id": position + 1, "name": word} for position, word in enumerate(words)],
        "annotations": annotations,
    }


def overlay_png(image_HWC: NDArray[np.uint8], label_HW: NDArray[np.integer], words: Sequence[str]) -> bytes:
    """Return the image under the colours of its words, with the legend below, at a size to look at."""
    image_HWC, label_HW = sized_for_show(image_HWC, label_HW)
    # Background, 0, becomes UNLABELLED, -1.
    legend = [
        {"name": words[label - 1], "colours": [hexadecimal(colour(label - 1))]}
        for label in np.unique(label_HW[label_HW > 0]).tolist()
    ]
    return _png(Image.fromarray(with_legend(overlay(image_HWC, label_HW - 1), legend)))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()
