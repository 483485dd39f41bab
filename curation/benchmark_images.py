"""The images of benchmarks, as perceptual hashes: what is trained on must not be what is measured on."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import xxhash
from numpy.typing import NDArray
from PIL import Image

from curation.image_bytes import FORMATS, HASHED_SIDE, perceptual_hash
from curation.schema import file_digest

logger = logging.getLogger(__name__)

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif")
"""What is read of a folder."""

_THREADS = 4


def benchmarks_digest(benchmarks: Sequence[str]) -> str:
    """Return a digest that changes when files come, go or change their size.

    Raises: FileNotFoundError when a benchmark is neither a folder with images nor a file.
    """
    state = xxhash.xxh3_128()
    for benchmark in benchmarks:
        path = Path(benchmark)
        if path.is_file():
            state.update(file_digest(path).encode())
        for image in _images(path):
            state.update(f"{image.relative_to(path)}\n{image.stat().st_size}\n".encode())
    return state.hexdigest()


def benchmark_hashes(benchmarks: Sequence[str]) -> tuple[list[str], NDArray[np.uint64]]:
    """Return a name and a perceptual hash for each image of folders, or for each line of files of hashes.

    A file has a hash per line, 16 hexadecimal digits (as imagehash prints a pHash), and what follows it is its name.

    Raises: FileNotFoundError, or ValueError that names the line or the image.
    """
    names: list[str] = []
    hashes: list[int] = []
    for benchmark in benchmarks:
        path = Path(benchmark)
        if path.is_file():
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                if line.strip():
                    value, _, name = line.strip().partition(" ")
                    names.append(name.strip() or f"{path.name} line {number}")
                    hashes.append(_parsed(value, f"{path} line {number}"))
            continue
        images = _images(path)
        with ThreadPoolExecutor(_THREADS) as pool:  # Pillow decodes without the interpreter's lock
            hashes += pool.map(_hash_of, images)
        names += [f"{path.name}/{image.relative_to(path)}" for image in images]
        logger.info("benchmark %s: %s images to leave out", path, f"{len(images):,}")
    return names, np.array(hashes, np.uint64)


def _images(path: Path) -> list[Path]:
    if path.is_file():
        return []
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
    if not found:
        raise FileNotFoundError(
            f"benchmarks: {path} holds no image; name a folder of images, or a file with a perceptual hash per line"
        )
    return found


def _hash_of(path: Path) -> int:
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.draft("RGB", (HASHED_SIDE, HASHED_SIDE))
            return perceptual_hash(image)
    except (OSError, ValueError, SyntaxError) as error:
        raise ValueError(
            f"{path}: cannot be decoded ({error}); remove it, or name the benchmark's images alone"
        ) from error


def _parsed(value: str, where: str) -> int:
    try:
        if len(value) == 16:
            return int(value, 16)
    except ValueError:
        pass
    raise ValueError(f"{where}: found {value!r}, expected a perceptual hash of 16 hexadecimal digits")
