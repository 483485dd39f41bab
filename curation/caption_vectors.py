"""Vectors of images from the words of their captions: hashed tf-idf, randomly projected. No model is needed."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import scipy.sparse
import xxhash
from numpy.typing import NDArray

NUM_BUCKETS = 1 << 15
"""Words that fall into one of these buckets together are one word."""
_NO_WORD = r"[^\pL\pN]+"


class CaptionVectors:
    """Turns captions into vectors, rare words weighing most.

    `documents` counts the rows of captions that hold a word of each bucket, among `num_rows` rows.
    """

    def __init__(self, documents: NDArray[np.int64], num_rows: int, dims: int, seed: int) -> None:
        self.documents = documents
        rarity = np.log((1 + num_rows) / (1 + documents)) + 1
        projection = np.random.default_rng(seed).standard_normal((NUM_BUCKETS, dims), np.float32)
        self._weighted = projection * (rarity / np.sqrt(dims)).astype(np.float32)[:, None]

    @classmethod
    def of(cls, captions: pa.ChunkedArray, dims: int, seed: int) -> CaptionVectors:
        """Return the vectors' maker for rows of captions (type of `SAMPLES.captions`)."""
        documents = np.zeros(NUM_BUCKETS, np.int64)
        for chunk in captions.chunks:
            documents += np.bincount(_word_counts(chunk).indices, minlength=NUM_BUCKETS)
        return cls(documents, len(captions), dims, seed)

    def vectors(self, captions: pa.ListArray) -> NDArray[np.float32]:
        """Return the vectors of rows of captions (type of `SAMPLES.captions`).

        Shapes: [rows, dims], of length 1; zero for a row without words.
        """
        counts = _word_counts(captions)
        counts.data = 1 + np.log(counts.data)
        vectors: NDArray[np.float32] = counts @ self._weighted
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        np.divide(vectors, lengths, out=vectors, where=lengths > 0)
        return vectors


def _word_counts(captions: pa.ListArray) -> scipy.sparse.csr_array:
    """Return how often each bucket's words occur. Shapes: [rows, NUM_BUCKETS]."""
    texts = pc.struct_field(pc.list_flatten(captions), "text")
    words = pc.split_pattern_regex(pc.utf8_lower(texts), _NO_WORD)
    rows = pc.list_parent_indices(captions).to_numpy()[pc.list_parent_indices(words).to_numpy()]
    found = pc.list_flatten(words).dictionary_encode()
    buckets = np.array([_bucket(word) for word in found.dictionary.to_pylist()], np.int64)[found.indices.to_numpy()]
    is_word = buckets >= 0
    ones = np.ones(int(is_word.sum()), np.float32)
    counts = scipy.sparse.coo_array((ones, (rows[is_word], buckets[is_word])), (len(captions), NUM_BUCKETS)).tocsr()
    counts.sum_duplicates()
    return counts


def _bucket(word: str) -> int:
    # Splitting leaves an empty string before a leading and after a trailing sign.
    return xxhash.xxh3_64_intdigest(word.encode()) % NUM_BUCKETS if word else -1
