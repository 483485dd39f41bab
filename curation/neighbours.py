"""Nearest neighbours by FAISS: exact among few vectors; among many, codes are scanned and the best compared exactly.

Vectors are whole numbers, directions of length UNIT: float32 adds their products without rounding, so that scores are
the same for any number of threads, block of a matrix product or processor, and equal scores are equal.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from curation.draw import Ints, hashes_of
from curation.manifest import replacing

Floats = NDArray[np.float32]
Vectors = NDArray[np.int16]

UNIT = 2000
"""Length of a vector. Squared distances stay below 4 * UNIT**2 < 2**24, up to which float32 holds every integer."""
FLAT_MAX = 10_000
"""Most vectors that are all compared."""
VECTORS_FILE = "vectors.npy"
CODES_FILE = "codes.faiss"
FACTOR_FILE = "candidates_per_neighbour.npy"

_TIE_DIMS = 16
_TIE_UNIT = 40  # cosines nearer than about (_TIE_UNIT / UNIT) ** 2 = .0004 are ties
_SAMPLED_QUERIES = 500
_STORED_QUERIES = 200
_BLOCK = 16_384


@dataclass(frozen=True)
class Recall:
    """What a search found of what an exact one finds, on sampled queries; by distance, so any of equals will do."""

    found: int = 0
    """neighbours at least as near as the last of the exact ones"""
    asked: int = 0
    """neighbours asked for; 0 for a search that is exact"""

    def __add__(self, other: Recall) -> Recall:
        return Recall(self.found + other.found, self.asked + other.asked)

    @property
    def rate(self) -> float:
        """The share that was found; 1 for a search that is exact."""
        return self.found / self.asked if self.asked else 1.0

    def counts(self) -> dict[str, int]:
        """Return both numbers as counts of a manifest; none for a search that is exact."""
        return {"sought on sampled images": self.asked, "found": self.found} if self.asked else {}


def rounded(vectors: NDArray[np.floating]) -> Vectors:
    """Return the directions of vectors in whole numbers. Shapes: [n, d]; a zero vector stays zero."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = np.divide(vectors, lengths, out=np.zeros(vectors.shape, np.float32), where=lengths > 0)
    numbers: Vectors = np.rint(unit * UNIT).astype(np.int16)
    return numbers


def with_ties_broken(vectors: Vectors, keys: Ints, seed: int) -> Floats:
    """Return vectors with a few more numbers, hashed from (seed, key): they decide between equals, and no one else.

    With one seed for queries and another for candidates, each query has an order of its own among equals.

    Shapes: [n, d], [n] -> [n, d + 16 and up to 3 more, a multiple of 4].
    """
    dims = _TIE_DIMS + -vectors.shape[1] % 4
    uniform = (hashes_of(keys, dims, seed) >> np.uint64(11)) * 2.0**-53
    spread = uniform - 0.5
    spread *= _TIE_UNIT / np.linalg.norm(spread, axis=1, keepdims=True)
    return np.concatenate([vectors.astype(np.float32), np.rint(spread).astype(np.float32)], axis=1)


class Search:
    """Finds among `vectors` the nearest to others; `recall` says how well."""

    def __init__(self, vectors: Floats, num_nearest: int, min_recall: float) -> None:
        self.num_nearest = min(num_nearest, len(vectors))
        self.recall = Recall()
        self._index: Any
        if len(vectors) <= FLAT_MAX:
            self._index = faiss.IndexFlatIP(vectors.shape[1])
            self._index.add(vectors)
            return
        self._index = faiss.IndexRefineFlat(trained_codes(vectors))
        self._index.add(vectors)
        queries = vectors[sampled(len(vectors))]
        bounds = exact_bounds(vectors, queries, self.num_nearest)
        self._index.k_factor = 1
        while self.recall.rate < min_recall or not self.recall.asked:
            self._index.k_factor *= 2
            self.recall = recall_of(self(queries)[0], bounds)

    def __call__(self, queries: Floats) -> tuple[Floats, Ints]:
        """Return scores and positions of the nearest vectors, the best first. Shapes: [n, d] -> [n, num_nearest]."""
        scores, positions = self._index.search(queries, self.num_nearest)
        return scores, positions


class StoredSearch:
    """Finds in a folder's `vectors.npy`, memory-mapped, the rows nearest to one vector."""

    def __init__(self, folder: Path) -> None:
        self.vectors: Vectors = np.load(folder / VECTORS_FILE, mmap_mode="r")
        self._codes: Any = None
        if (folder / CODES_FILE).exists():
            self._codes = faiss.read_index(str(folder / CODES_FILE), faiss.IO_FLAG_MMAP_IFC)
            self._factor, self._least = np.load(folder / FACTOR_FILE).tolist()

    def __call__(self, vector: Floats, num_nearest: int, rows: Ints | None = None) -> tuple[Floats, Ints]:
        """Return cosines and rows of the nearest vectors, or fewer, the best first, among equals the first row.

        With `rows` these are compared, all of them and no other. Shapes: vector [d] -> [num_nearest].
        """
        query = rounded(vector[None])[0].astype(np.float32)
        if rows is None and self._codes is not None:
            padded = np.pad(query, (0, self._codes.d - len(query)))
            # For few neighbours as many candidates as for those that the recall was measured with.
            num_candidates = min(max(num_nearest, self._least) * self._factor, len(self.vectors))
            rows = self._codes.search(padded[None], num_candidates)[1][0]
            rows = np.sort(rows[rows >= 0])
        elif rows is None:
            rows = np.arange(len(self.vectors))
        blocks = (self.vectors[rows[first : first + _BLOCK]] for first in range(0, len(rows), _BLOCK))
        scores = np.concatenate([np.zeros(0, np.float32), *(block.astype(np.float32) @ query for block in blocks)])
        best = np.argsort(-scores, kind="stable")[:num_nearest]
        cosines: Floats = (scores[best] / UNIT**2).astype(np.float32)
        return cosines, rows[best]


def write_vectors(folder: Path, blocks: Iterator[NDArray[np.floating]], count: int) -> Vectors:
    """Write `vectors.npy` from blocks of directions, unless it is there, and return it memory-mapped."""
    path = folder / VECTORS_FILE
    if not path.exists():
        with replacing(path) as temporary:
            first, vectors = 0, None
            for block in blocks:
                if vectors is None:
                    shape = (count, block.shape[1])
                    vectors = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.int16, shape=shape)
                vectors[first : first + len(block)] = rounded(block)
                first += len(block)
            if first != count:
                raise ValueError(f"{path}: expected vectors of {count:,} images, found {first:,}: a defect")
    stored: Vectors = np.load(path, mmap_mode="r")
    return stored


def write_codes(folder: Path, num_nearest: int, min_recall: float) -> Recall:
    """Index the folder's `vectors.npy` for free search, where they are too many to compare all, and return its recall.

    More candidates are compared until the share of exact neighbours that is found reaches `min_recall`.
    """
    vectors: Vectors = np.load(folder / VECTORS_FILE, mmap_mode="r")
    if len(vectors) <= FLAT_MAX:
        return Recall()
    codes = trained_codes(_padded(vectors[sampled(len(vectors), _BLOCK)]))
    for first in range(0, len(vectors), _BLOCK):
        codes.add(_padded(vectors[first : first + _BLOCK]))
    with replacing(folder / CODES_FILE) as temporary:
        faiss.write_index(codes, str(temporary))
    queries = vectors[sampled(len(vectors), _STORED_QUERIES)].astype(np.float32)
    bounds = (exact_bounds(vectors, queries, num_nearest) / UNIT**2).astype(np.float32)
    recall, factor = Recall(), 1
    while recall.rate < min_recall or not recall.asked:
        factor *= 2
        with replacing(folder / FACTOR_FILE) as temporary, temporary.open("wb") as file:
            np.save(file, [factor, num_nearest])
        search = StoredSearch(folder)
        recall = recall_of(np.stack([search(query, num_nearest)[0] for query in queries]), bounds)
    return recall


def trained_codes(vectors: Floats) -> Any:
    """Return an empty index of 4 bits per 2 numbers, trained on vectors. Shapes: [n, a multiple of 4]."""
    codes = faiss.IndexPQFastScan(vectors.shape[1], vectors.shape[1] // 2, 4, faiss.METRIC_INNER_PRODUCT)
    codes.pq.cp.niter = 10
    codes.train(vectors[sampled(len(vectors), _BLOCK)])
    return codes


def sampled(count: int, most: int = _SAMPLED_QUERIES) -> Ints:
    """Return at most `most` positions, evenly spread."""
    return np.unique(np.linspace(0, count - 1, most).astype(np.int64))


def exact_bounds(vectors: NDArray[Any], queries: Floats, num_nearest: int) -> Floats:
    """Return the score of each query's last of the nearest. Shapes: [n, d], [q, d] -> [q, 1]."""
    best = np.full((len(queries), num_nearest), -np.inf, np.float32)
    for first in range(0, len(vectors), _BLOCK):
        scores = queries @ vectors[first : first + _BLOCK].astype(np.float32).T
        best = -np.partition(-np.concatenate([best, scores], axis=1), num_nearest - 1, axis=1)[:, :num_nearest]
    bounds: Floats = best.min(axis=1, keepdims=True)
    return bounds


def recall_of(scores: Floats, bounds: Floats) -> Recall:
    """Return the recall of found scores against the bounds of the exact ones."""
    return Recall(int((scores >= bounds).sum()), scores.size)


def use_threads(threads: int) -> None:
    """Let FAISS use so many threads."""
    faiss.omp_set_num_threads(threads)


def _padded(vectors: Vectors) -> Floats:
    return np.pad(vectors.astype(np.float32), ((0, 0), (0, -vectors.shape[1] % 4)))
