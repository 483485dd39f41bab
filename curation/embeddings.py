"""embeddings/: a vector per stored image, made by a model elsewhere and kept here; pairs may be drawn by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.datacard import write_datacard
from curation.images import Samples
from curation.manifest import Manifest, Part, close_stage, finished_part, open_stage, read_manifest, write_part
from curation.progress import Progress
from curation.schema import part_name

Embed = Callable[[Samples, range], NDArray[np.float32]]
"""Returns the vectors of rows of samples. Shapes: -> [rows, E], of length 1; zero for an image that has none."""

NO_VECTOR = "no vector"


@dataclass(frozen=True)
class EmbedConfig:
    """What is embedded, and how it is kept."""

    of: Literal["captions", "images"] = "captions"
    """captions: the mean of an image's captions; images: the image itself"""
    dtype: Literal["float16", "float32"] = "float16"
    """type of a vector's numbers"""
    images_per_part: int = 20_000
    """images in a part: what is lost when the stage is killed"""

    def __post_init__(self) -> None:
        if self.of not in ("captions", "images"):
            raise ValueError(f"of = {self.of!r}: expected 'captions' or 'images'")
        if self.dtype not in ("float16", "float32"):
            raise ValueError(f"dtype = {self.dtype!r}: expected 'float16' or 'float32'")
        if self.images_per_part < 1:
            raise ValueError(f"images_per_part = {self.images_per_part}: expected at least 1")


def embeddings_dir(data_dir: Path, of: str) -> Path:
    """Return the folder of the embeddings of captions or images."""
    return Path(data_dir) / "embeddings" / of


def write_embeddings(data_dir: Path, embed: Embed, model_digest: str, config: EmbedConfig = EmbedConfig()) -> Manifest:
    """Write the vectors of all stored images into embeddings/, by parts in order of samples.arrow.

    Each part has `key` and `vector`, a list of fixed size. `model_digest` tells models apart.

    Raises: ValueError when the folder was made from other images, by another model or with another config.
    """
    folder, images_dir = embeddings_dir(data_dir, config.of), Path(data_dir) / "images"
    inputs = {"images": read_manifest(images_dir).digest, "model": model_digest}
    if done := open_stage(folder, "embed", asdict(config), inputs):
        return done
    samples = Samples(images_dir)
    parts: list[Part] = []
    with Progress("embed", len(samples)) as progress:
        for number, first in enumerate(range(0, len(samples), config.images_per_part)):
            rows = range(first, min(first + config.images_per_part, len(samples)))
            name = part_name(number)
            part = finished_part(folder, name) or _write(folder, name, samples, rows, embed(samples, rows), config)
            parts.append(part)
            progress.part(name, len(rows), len(rows), part.rows - part.counts[NO_VECTOR], part.counts)
    manifest = close_stage(folder, parts)
    num_without = manifest.counts.get(NO_VECTOR, 0)
    write_datacard(folder, f"Embeddings of {config.of}", {"images": len(samples)}, {NO_VECTOR: num_without})
    return manifest


def read_embeddings(data_dir: Path, of: str) -> Iterator[NDArray[np.floating]]:
    """Yield the vectors of all stored images, a block per part, in order of samples.arrow.

    Raises: FileNotFoundError when the stage has not finished, ValueError when it embedded other images.
    """
    folder = embeddings_dir(data_dir, of)
    manifest = read_manifest(folder)
    images = read_manifest(Path(data_dir) / "images").digest
    if manifest.inputs["images"] != images:
        raise ValueError(
            f"{folder}: made of images with digest {manifest.inputs['images']}, found {images}; "
            f"remove the folder and run the embed stage again"
        )
    for part in manifest.parts:
        lists = pq.read_table(folder / part.name, columns=["vector"])["vector"].combine_chunks()
        yield lists.values.to_numpy().reshape(len(lists), -1)


def _write(
    folder: Path, name: str, samples: Samples, rows: range, vectors: NDArray[np.float32], config: EmbedConfig
) -> Part:
    numbers = pa.array(vectors.astype(config.dtype).reshape(-1))
    columns: dict[str, Any] = {
        "key": samples.keys[rows.start : rows.stop],
        "vector": pa.FixedSizeListArray.from_arrays(numbers, vectors.shape[1]),
    }
    return write_part(folder, name, pa.table(columns), {NO_VECTOR: int((~vectors.any(axis=1)).sum())})
