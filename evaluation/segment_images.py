"""Images to files of masks, by any words: what `ovseg segment` and the page of `ovseg app` do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from evaluation.atomic import write_bytes, write_json
from evaluation.config import Protocol
from evaluation.image_files import UnreadableImageError, read_image
from evaluation.masks import mask_files
from evaluation.prompts import check_names
from evaluation.segment import BACKGROUND, Segmenter
from model import OVSegmentor

RESULT = "segmentation.json"


def split_words(text: str) -> tuple[str, ...]:
    """Return the words of "dog, grass".

    Raises: ValueError for no word, an empty one, one given twice, or `background`.
    """
    words = tuple(word.strip() for word in text.split(",")) if text.strip() else ()
    check_names(words)
    if BACKGROUND in words:
        raise ValueError(f"{BACKGROUND!r} is always there: it is what no word claims; leave it out")
    return words


def default_protocol(model: OVSegmentor) -> Protocol:
    """Return how a model is asked for masks of images of any size: at the size that it was trained at, or as published.

    Things of a photograph of many megapixels would be far larger than any that the model has seen.
    """
    if model.behaviour == "paper":
        return Protocol.paper()
    return Protocol(shorter_side=model.config.image.image_size)


def word_segmenter(
    model: OVSegmentor, words: Sequence[str], protocol: Protocol | None = None, background: str = ""
) -> Segmenter:
    """Return the model asked for words; the things of "sky, wall", where there are any, count as none of them.

    Without a protocol it is the default_protocol.
    Raises: ValueError when background words make no sense, or a single word would be compared with nothing.
    """
    protocol = protocol or default_protocol(model)
    if background.strip():
        protocol = replace(protocol, background="words", background_words=split_words(background))
    if len(words) == 1 and protocol.background != "words":
        raise ValueError(
            f"{words[0]!r} alone is compared with nothing, so it would claim every pixel; "
            f"add words, or name what else is in the images as background words"
        )
    return Segmenter(model, (BACKGROUND, *words), protocol)


def label_image(segmenter: Segmenter, image_HWC: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Return the label of every pixel. Shapes: image_HWC [H, W, 3] -> [H, W]."""
    image_BCHW = torch.from_numpy(image_HWC).permute(2, 0, 1)[None]
    label_HW: NDArray[np.int64] = segmenter.segment(image_BCHW)[0].cpu().numpy()
    return label_HW


def segment_images(segmenter: Segmenter, words: Sequence[str], images: Sequence[Path], out_dir: Path) -> dict[str, Any]:
    """Write the masks of each image into a folder; return, and write last as segmentation.json, what became of each.

    Each file appears whole or not at all. An image that cannot be read is a row with the reason.
    Raises: ValueError when two images would get the same name, or when no image can be read.
    """
    _check_stems(images)
    rows: list[dict[str, Any]] = []
    refused: list[dict[str, str]] = []
    for path in tqdm(images, desc="segment", unit="image", disable=None):
        try:
            image_HWC = read_image(path)
        except UnreadableImageError as error:
            refused.append({"image": str(path), "reason": str(error)})
            continue
        label_HW = label_image(segmenter, image_HWC)
        files = {
            path.stem + ending: content for ending, content in mask_files(image_HWC, label_HW, words, path.name).items()
        }
        for name, content in files.items():
            write_bytes(out_dir / name, content)
        rows.append({"image": str(path), "pixels": _pixels(label_HW, words), "files": list(files)})
    result = {
        "words": list(words),
        "protocol": asdict(segmenter.protocol),
        "images": rows,
        "refused": refused,
    }
    write_json(out_dir / RESULT, result)
    if not rows:
        raise ValueError(f"none of {len(refused)} images can be read; {refused[0]['image']}: {refused[0]['reason']}")
    return result


def _check_stems(images: Sequence[Path]) -> None:
    seen: dict[str, Path] = {}
    for path in images:
        if path.stem in seen:
            raise ValueError(
                f"{seen[path.stem]} and {path} would both be written as {path.stem}-mask.png; "
                f"segment them into two folders"
            )
        seen[path.stem] = path


def _pixels(label_HW: NDArray[np.int64], words: Sequence[str]) -> dict[str, int]:
    count_C = np.bincount(label_HW.ravel(), minlength=len(words) + 1)
    return dict(zip((BACKGROUND, *words), count_C.tolist(), strict=True))
