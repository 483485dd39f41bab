"""Pairs: partner images that share an entity, drawn for each stored image, and a search for similar captions.

pairs/ holds a row per drawn pair, partners.arrow the same for the loader, captions.faiss the vectors of all images.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.caption_vectors import caption_vectors
from curation.datacard import write_datacard
from curation.draw import Slices, draw_uniform
from curation.images import Partners, Samples, write_partners
from curation.manifest import (
    Manifest,
    Part,
    close_stage,
    finished_part,
    open_stage,
    read_manifest,
    replacing,
    write_part,
)
from curation.progress import Progress
from curation.schema import PAIRS, part_name

logger = logging.getLogger(__name__)

INDEX_FILE = "captions.faiss"
IMAGES_PER_PART = 100_000

NO_ENTITY = "no entity"
NO_OTHER_IMAGE = "no other image with its entities"


@dataclass(frozen=True)
class PairsConfig:
    """How partners are drawn."""

    num_partners: int = 10
    """partners drawn per image, with replacement"""
    kind: Literal["uniform"] = "uniform"
    """uniform: an entity of the image, then another image that has it, each with equal chances"""
    seed: int = 0
    """seed of the draws and of the projection of caption vectors"""
    index_dims: int | None = 256
    """numbers per caption vector (4 bytes each, per image) in the index of similar images; None builds no index"""

    def __post_init__(self) -> None:
        if self.num_partners < 1:
            raise ValueError(f"num_partners = {self.num_partners}: expected at least 1")
        if self.kind != "uniform":
            raise ValueError(f"kind = {self.kind!r}: expected 'uniform'")
        if self.seed < 0:
            raise ValueError(f"seed = {self.seed}: expected 0 or more")
        if self.index_dims is not None and self.index_dims < 1:
            raise ValueError(f"index_dims = {self.index_dims}: expected at least 1, or None for no index")


def build_pairs(data_dir: Path, config: PairsConfig = PairsConfig()) -> Manifest:
    """Draw the partners of the images in images/ into pairs/, index their captions, and return the manifest.

    Raises: ValueError when the folder was made from other images or with another config.
    """
    pairs_dir, images_dir, postings_dir = (Path(data_dir) / name for name in ("pairs", "images", "postings"))
    inputs = {folder.name: read_manifest(folder).digest for folder in (images_dir, postings_dir)}
    if done := open_stage(pairs_dir, "pairs", asdict(config), inputs):
        return done
    samples = Samples(images_dir)
    names, slices = _read_slices(postings_dir, samples)
    shared = slices.shared()
    parts: list[Part] = []
    times_partner = np.zeros(len(samples), np.int64)

    def drawn() -> Iterator[tuple[NDArray[np.int32], NDArray[np.int32]]]:
        with Progress("pairs", len(samples)) as progress:
            for number, first in enumerate(range(0, len(samples), IMAGES_PER_PART)):
                rows = np.arange(first, min(first + IMAGES_PER_PART, len(samples)))
                partners, entities = draw_uniform(shared, rows, samples.keys[rows], config.num_partners, config.seed)
                times_partner[:] += np.bincount(partners[partners >= 0], minlength=len(samples))
                name = part_name(number)
                table = _pairs_table(samples, rows, partners, entities, names)
                parts.append(finished_part(pairs_dir, name) or write_part(pairs_dir, name, table))
                progress.part(name, len(rows), len(rows), int((partners[:, 0] >= 0).sum()), {})
                yield partners, entities

    write_partners(pairs_dir, drawn(), names, samples.digest)
    if config.index_dims is not None:
        _write_index(pairs_dir / INDEX_FILE, samples, config.index_dims, config.seed)
    has_entity, has_partner = (np.diff(each.row_starts) > 0 for each in (slices, shared))
    drops = {NO_ENTITY: int((~has_entity).sum()), NO_OTHER_IMAGE: int((has_entity & ~has_partner).sum())}
    _write_card(pairs_dir, names, slices, times_partner, parts, drops)
    return close_stage(pairs_dir, parts, {"images": len(samples), **drops})


class PairIndex:
    """The drawn partners of a data folder, and the images whose captions are similar."""

    def __init__(self, data_dir: Path) -> None:
        self.pairs_dir = Path(data_dir) / "pairs"
        self._manifest = read_manifest(self.pairs_dir)
        self._samples = Samples(Path(data_dir) / "images")
        self._postings_dir = Path(data_dir) / "postings"
        self._entity_names = Partners(self.pairs_dir, self._samples).entity_names

    def partners(self, key: int) -> pa.Table:
        """Return the pairs (`PAIRS`) drawn for an image; none when it has no partner.

        Raises: KeyError when no image with this key is stored.
        """
        part = self._manifest.parts[self._samples.position(key) // IMAGES_PER_PART]
        return pq.read_table(self.pairs_dir / part.name, filters=[("key", "=", key)])

    def similar(self, key_or_vector: int | NDArray[np.float32], k: int, entity: str | None = None) -> pa.Table:
        """Return `key` and `score` of the k images, or fewer, with the most similar captions, the best first.

        A key's own image is left out; `entity` keeps the search to the images that have it. The score is the cosine.

        Shapes: a vector is [index_dims], of length 1.
        Raises: KeyError for a key that is not stored; ValueError for an unknown entity.
        """
        if isinstance(key_or_vector, int | np.integer):
            own = int(key_or_vector)
            vector: Any = faiss.downcast_index(self._index.index).reconstruct(self._samples.position(own))
        else:
            own, vector = -1, np.asarray(key_or_vector, np.float32)
        params = None if entity is None else faiss.SearchParameters(sel=self._having(entity))  # type: ignore[call-arg]
        scores, keys = self._index.search(vector[None], min(k + 1, len(self._samples)), params=params)
        is_hit = (keys[0] >= 0) & (keys[0] != own)
        return pa.table({"key": keys[0][is_hit][:k], "score": scores[0][is_hit][:k]})

    @cached_property
    def _index(self) -> Any:
        path = self.pairs_dir / INDEX_FILE
        if not path.exists():
            raise FileNotFoundError(f"{path}: not there; it is made when index_dims is set: make pairs/ anew with it")
        return faiss.read_index(str(path))

    def _having(self, entity: str) -> Any:
        if entity not in self._entity_names:
            raise ValueError(f"entity {entity!r} is unknown; known: {', '.join(self._entity_names)}")
        keys = _read_postings(self._postings_dir, [("entity", "=", entity)])["key"].to_numpy()
        return faiss.IDSelectorBatch(keys)


def _read_slices(postings_dir: Path, samples: Samples) -> tuple[list[str], Slices]:
    """Return the names of the entities and which stored images have each, in order of arrival."""
    postings = _read_postings(postings_dir)
    entities = postings["entity"].combine_chunks().dictionary_encode()  # sorted by entity: codes ascend
    keys = postings["key"].to_numpy()
    rows = np.searchsorted(samples.keys, keys)
    is_stored = samples.keys[np.minimum(rows, len(samples) - 1)] == keys
    codes = entities.indices.to_numpy().astype(np.int64)
    names: list[str] = entities.dictionary.to_pylist()
    return names, Slices.of(codes[is_stored], rows[is_stored], len(names), len(samples))


def _read_postings(postings_dir: Path, filters: list[tuple[str, str, str]] | None = None) -> pa.Table:
    columns = ["entity", "key"]
    parts = read_manifest(postings_dir).parts
    return pa.concat_tables(pq.read_table(postings_dir / part.name, columns=columns, filters=filters) for part in parts)


def _pairs_table(
    samples: Samples,
    rows: NDArray[np.int64],
    partners: NDArray[np.int32],
    entities: NDArray[np.int32],
    names: list[str],
) -> pa.Table:
    is_pair = partners.reshape(-1) >= 0
    columns = {
        "key": samples.keys[np.repeat(rows, partners.shape[1])][is_pair],
        "pair_key": samples.keys[partners.reshape(-1)][is_pair],
        "entity": pc.take(pa.array(names, pa.string()), pa.array(entities.reshape(-1)[is_pair])),
        "score": np.zeros(int(is_pair.sum()), np.float32),
    }
    return pa.table(columns, schema=PAIRS)


def _write_index(path: Path, samples: Samples, dims: int, seed: int) -> None:
    if path.exists():
        return
    index = faiss.IndexIDMap(faiss.IndexFlatIP(dims))
    first = 0
    for vectors in caption_vectors(samples.table["captions"], dims, seed):
        index.add_with_ids(vectors, samples.keys[first : first + len(vectors)])
        first += len(vectors)
    with replacing(path) as temporary:
        faiss.write_index(index, str(temporary))
    logger.info("pairs index  %s images, %d numbers each", f"{first:,}", dims)


def _write_card(
    pairs_dir: Path,
    names: list[str],
    slices: Slices,
    times_partner: NDArray[np.int64],
    parts: list[Part],
    drops: dict[str, int],
) -> None:
    num_images = np.diff(slices.starts)
    figures = {
        "images": len(times_partner),
        "images with partners": len(times_partner) - sum(drops.values()),
        "pairs": sum(part.rows for part in parts),
        "entities": int((num_images > 0).sum()),
        "entities of a single image": int((num_images == 1).sum()),
        "images that serve as a partner": int((times_partner > 0).sum()),
        "most pairs that one image serves in": int(times_partner.max(initial=0)),
    }
    by_number = sorted(zip(names, num_images.tolist(), strict=True), key=lambda entity: (-entity[1], entity[0]))
    entities = [{"entity": name, "images": number} for name, number in by_number]
    write_datacard(pairs_dir, "Pairs", figures, drops, {"entities": entities})
