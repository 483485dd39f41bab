"""Pairs: partner images that share an entity, drawn for each stored image, by chance or among the similar.

pairs/ holds a row per drawn pair, left_out.parquet a reason for each image with too few, partners.arrow the pairs for
the loader, vectors.npy and codes.faiss what a search for similar images needs, sheet.jpg examples to look at.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.caption_vectors import CaptionVectors
from curation.contact_sheet import write_sheet
from curation.draw import Ints, Rows, Slices, draw_uniform
from curation.embeddings import embeddings_dir, read_embeddings
from curation.images import Samples, write_partners
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
from curation.neighbours import Recall, Vectors, use_threads, write_codes, write_vectors
from curation.pairs_card import PairsTally
from curation.progress import Progress
from curation.schema import PAIRS, file_digest, part_name
from curation.similar import chosen, cosines, nearest_slots, preferred

logger = logging.getLogger(__name__)

VectorsOf = Literal["words", "captions", "images"]

IMAGES_PER_PART = 100_000
WORDS_FILE = "words.npy"
"""how many images have a word of each bucket, and after them how many images there are"""
DUPLICATES_FILE = "duplicates.parquet"
"""file in images/, where it is: `key` and `group` of images that are marked as duplicates of each other"""

_SCRATCH = "scratch"


@dataclass(frozen=True)
class PairsConfig:
    """How partners are drawn."""

    num_partners: int = 10
    """most partners of an image"""
    kind: Literal["uniform", "similar"] = "uniform"
    """uniform: an entity of the image, then another image that has it, each with equal chances, with replacement;
    similar: different ones of the most similar images that share an entity, its entities in turn"""
    seed: int = 0
    """seed of the draws and of the projection of caption vectors"""
    vectors: VectorsOf | None = "words"
    """what tells similar images: words (of the captions, hashed tf-idf), or what the embed stage made of captions or
    images; None, with uniform, searches nothing"""
    word_dims: int = 256
    """numbers per vector of words (2 bytes each, per image)"""
    num_nearest: int = 30
    """similar: partners are drawn among so many nearest images of each entity"""
    max_serves: int | None = None
    """similar: most images that have one image as partner; None sets no limit"""
    min_recall: float = 0.97
    """share of the nearest that a search by codes must find, on sampled images; it compares more until it does"""
    sheet_entities: int = 16
    """entities on the contact sheet, the most frequent; 0 makes none"""

    def __post_init__(self) -> None:
        for name, least in (("num_partners", 1), ("word_dims", 1), ("seed", 0), ("sheet_entities", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} = {getattr(self, name)}: expected at least {least}")
        if self.kind not in ("uniform", "similar"):
            raise ValueError(f"kind = {self.kind!r}: expected 'uniform' or 'similar'")
        if self.vectors not in (None, *get_args(VectorsOf)):
            raise ValueError(f"vectors = {self.vectors!r}: expected one of {', '.join(get_args(VectorsOf))}, or None")
        if self.kind == "similar" and self.vectors is None:
            raise ValueError("vectors = None: kind 'similar' needs them; expected 'words', 'captions' or 'images'")
        if not self.num_partners <= self.num_nearest <= 200 and self.kind == "similar":
            raise ValueError(f"num_nearest = {self.num_nearest}: expected num_partners ({self.num_partners}) to 200")
        if self.max_serves is not None and (self.kind != "similar" or self.max_serves < 1):
            raise ValueError(f"max_serves = {self.max_serves}: expected None, or at least 1 with kind 'similar'")
        if not 0 < self.min_recall <= 1:
            raise ValueError(f"min_recall = {self.min_recall}: expected above 0 and at most 1")


def build_pairs(data_dir: Path, config: PairsConfig = PairsConfig(), threads: int | None = None) -> Manifest:
    """Draw the partners of the images in images/ into pairs/, make them searchable, and return the manifest.

    `threads` (default: one per core) changes nothing but the time.

    Raises: ValueError when the folder was made from other images or with another config.
    """
    threads = threads or os.cpu_count() or 1
    use_threads(threads)
    data_dir = Path(data_dir)
    pairs_dir = data_dir / "pairs"
    if done := open_stage(pairs_dir, "pairs", asdict(config), _inputs(data_dir, config)):
        return done
    samples = Samples(data_dir / "images")
    names, slices = read_slices(data_dir, samples)
    shared = slices.shared()
    vectors = _vectors(data_dir, samples, config) if config.vectors else None
    free_recall = Recall() if vectors is None else write_codes(pairs_dir, config.num_nearest, config.min_recall)
    draw, before_cap, recall = _uniform(samples, shared, config), None, Recall()
    if config.kind == "similar":
        assert vectors is not None
        draw, before_cap, recall = _similar(pairs_dir, samples, vectors, names, shared, config)

    tally = PairsTally(samples.keys, names, slices, shared, before_cap)

    def work(number: int) -> tuple[Part, Ints, Rows]:
        first = number * IMAGES_PER_PART
        rows = np.arange(first, min(first + IMAGES_PER_PART, len(samples)))
        slots = draw(rows)
        name = part_name(number)
        part = finished_part(pairs_dir, name)
        if part is None:
            table = _pairs_table(samples, rows, slots, shared, names, vectors if config.kind == "similar" else None)
            part = write_part(pairs_dir, name, table, row_group_size=IMAGES_PER_PART)
        return part, rows, slots

    parts: list[Part] = []

    def drawn() -> Iterator[tuple[Rows, Rows]]:
        with Progress("pairs", len(samples)) as progress, ThreadPoolExecutor(threads) as pool:
            for part, rows, slots in pool.map(work, range(-(-len(samples) // IMAGES_PER_PART))):
                parts.append(part)
                tally.add(rows, slots)
                progress.part(part.name, len(rows), len(rows), int((slots[:, 0] >= 0).sum()), {})
                yield shared.partners(slots)

    write_partners(pairs_dir, drawn(), names, samples.digest)
    recalls = {"nearest within entities": recall, "nearest by free search": free_recall}
    reasons = tally.write(pairs_dir, sum(part.rows for part in parts), recalls)
    if config.sheet_entities:
        write_sheet(pairs_dir, samples, tally.examples(config.sheet_entities))
    shutil.rmtree(pairs_dir / _SCRATCH, ignore_errors=True)
    sampled = {f"{what}, {name}": number for what, each in recalls.items() for name, number in each.counts().items()}
    return close_stage(pairs_dir, parts, {"images": len(samples), **reasons, **sampled})


def _inputs(data_dir: Path, config: PairsConfig) -> dict[str, str]:
    inputs = {name: read_manifest(data_dir / name).digest for name in ("images", "postings")}
    if config.vectors in ("captions", "images"):
        inputs["embeddings"] = read_manifest(embeddings_dir(data_dir, config.vectors)).digest
    if (data_dir / "images" / DUPLICATES_FILE).exists():
        inputs["duplicates"] = file_digest(data_dir / "images" / DUPLICATES_FILE)
    return inputs


def read_slices(data_dir: Path, samples: Samples) -> tuple[list[str], Slices]:
    """Return the names of the entities and which stored images have each, in order of arrival."""
    postings = read_postings(data_dir / "postings")
    entities = postings["entity"].unify_dictionaries().combine_chunks()
    keys = postings["key"].to_numpy()
    names: list[str] = entities.dictionary.to_pylist()  # sorted, as the postings are
    codes = entities.indices.to_numpy().astype(np.int64)
    rows, is_stored = _rows(samples, keys)
    groups = None
    path = data_dir / "images" / DUPLICATES_FILE
    if path.exists():
        duplicates = pq.read_table(path, columns=["key", "group"])
        marked, is_marked = _rows(samples, duplicates["key"].to_numpy())
        _, first, same = np.unique(duplicates["group"].to_numpy()[is_marked], return_index=True, return_inverse=True)
        groups = np.arange(len(samples))
        groups[marked[is_marked]] = marked[is_marked][first][same]
    return names, Slices.of(codes[is_stored], rows[is_stored], len(names), len(samples), groups)


def read_postings(postings_dir: Path, filters: list[tuple[str, str, str]] | None = None) -> pa.Table:
    """Return entity (a dictionary) and key of the postings that the filters let through."""
    tables = [
        pq.read_table(postings_dir / part.name, columns=["entity", "key"], filters=filters, read_dictionary=["entity"])
        for part in read_manifest(postings_dir).parts
    ]
    return pa.concat_tables(tables)


def _rows(samples: Samples, keys: Ints) -> tuple[Ints, NDArray[np.bool_]]:
    """Return the row of each key, and whether it is stored at all."""
    rows = np.searchsorted(samples.keys, keys)
    return rows, samples.keys[np.minimum(rows, len(samples) - 1)] == keys


def _vectors(data_dir: Path, samples: Samples, config: PairsConfig) -> Vectors:
    pairs_dir = data_dir / "pairs"
    if config.vectors in ("captions", "images"):
        return write_vectors(pairs_dir, read_embeddings(data_dir, config.vectors), len(samples))
    captions = pa.chunked_array(
        [
            chunk.slice(first, IMAGES_PER_PART)
            for chunk in samples.table["captions"].chunks
            for first in range(0, len(chunk), IMAGES_PER_PART)
        ],
        samples.table["captions"].type,
    )
    words = CaptionVectors.of(captions, config.word_dims, config.seed)
    with replacing(pairs_dir / WORDS_FILE) as path, path.open("wb") as file:
        np.save(file, np.append(words.documents, len(samples)))
    return write_vectors(pairs_dir, map(words.vectors, captions.chunks), len(samples))


def _uniform(samples: Samples, shared: Slices, config: PairsConfig) -> Callable[[Ints], Rows]:
    return lambda rows: draw_uniform(shared, rows, samples.keys[rows], config.num_partners, config.seed)


def _similar(
    pairs_dir: Path, samples: Samples, vectors: Vectors, names: list[str], shared: Slices, config: PairsConfig
) -> tuple[Callable[[Ints], Rows], Rows, Recall]:
    """Return the draw among similar images, the first choices of all rows before the cap, and the search's recall."""
    keys, seed = samples.keys, config.seed
    nearest, recall = nearest_slots(
        shared, vectors, keys, config.num_nearest, config.min_recall, seed, names, pairs_dir / _SCRATCH
    )
    preferences = preferred(shared, nearest, np.arange(len(samples)), keys, config.num_nearest, seed)
    del nearest
    is_chosen = chosen(preferences, shared, keys, config.num_partners, config.max_serves, seed)

    def draw(rows: Ints) -> Rows:
        part = slice(rows[0], rows[-1] + 1)
        order = np.argsort(~is_chosen[part], axis=1, kind="stable")[:, : config.num_partners]
        slots = np.take_along_axis(np.where(is_chosen[part], preferences[part], -1), order, axis=1)
        return slots.astype(np.int32)

    return draw, preferences[:, : config.num_partners], recall


def _pairs_table(
    samples: Samples, rows: Ints, slots: Rows, shared: Slices, names: list[str], vectors: Vectors | None
) -> pa.Table:
    """Return the pairs of rows, scored by vectors where they are given."""
    partners, codes = shared.partners(slots)
    is_pair = slots >= 0
    scores = np.zeros(slots.shape, np.float32) if vectors is None else cosines(vectors, rows, partners)
    columns = {
        "key": samples.keys[np.repeat(rows, is_pair.sum(axis=1))],
        "pair_key": samples.keys[partners[is_pair]],
        "entity": pa.DictionaryArray.from_arrays(codes[is_pair], pa.array(names, pa.string())).cast(pa.string()),
        "score": scores[is_pair],
    }
    return pa.table(columns, schema=PAIRS)
