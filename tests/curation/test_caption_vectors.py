from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from curation.caption_vectors import CaptionVectors
from curation.schema import SAMPLES

TYPE = SAMPLES.field("captions").type


def _vectors(*chunks: list[list[str]], dims: int = 512) -> np.ndarray:
    arrays = [pa.array([[{"text": text, "mentions": []} for text in texts] for texts in rows], TYPE) for rows in chunks]
    words = CaptionVectors.of(pa.chunked_array(arrays, TYPE), dims, seed=0)
    return np.concatenate([words.vectors(array) for array in arrays])


def test_cosine_is_near_that_of_plain_tf_idf() -> None:
    rows = [["A black cat, a cat!"], ["Black dogs"], ["the cat's sofa", "a cat"], [""]]
    vectors = _vectors(rows[:2], rows[2:])
    words = [["a", "black", "cat", "a", "cat"], ["black", "dogs"], ["the", "cat", "s", "sofa", "a", "cat"], []]
    plain = []
    for row in words:
        counts = {word: row.count(word) for word in row}
        idf = {word: math.log(5 / (1 + sum(word in other for other in words))) + 1 for word in row}
        plain.append({word: (1 + math.log(count)) * idf[word] for word, count in counts.items()})
    lengths = [math.sqrt(sum(value**2 for value in row.values())) or 1 for row in plain]
    for i in range(3):
        for j in range(3):
            cosine = sum(plain[i][word] * plain[j].get(word, 0) for word in plain[i]) / lengths[i] / lengths[j]
            assert abs(vectors[i] @ vectors[j] - cosine) < 0.15  # the projection spreads cosines by 1 / sqrt(512)
    assert not vectors[3].any()


def test_order_of_chunks_and_case_do_not_matter() -> None:
    once = _vectors([["a cat"], ["two dogs"], ["Ein Bär"]])
    again = _vectors([["a cat"]], [["two DOGS"], ["ein bär"]])
    assert np.allclose(once, again, atol=1e-6)
