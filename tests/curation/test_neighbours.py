from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation import neighbours
from curation.neighbours import Search, StoredSearch, rounded, use_threads, with_ties_broken, write_codes, write_vectors


def _clusters(count: int, dims: int = 24, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.standard_normal((20, dims))[generator.integers(20, size=count)] + generator.standard_normal(
        (count, dims)
    )


def _exact(vectors: np.ndarray, queries: np.ndarray, count: int) -> np.ndarray:
    """Return the scores of the nearest, by plain whole numbers."""
    return -np.sort(-(queries.astype(np.int64) @ vectors.astype(np.int64).T), axis=1)[:, :count]


def test_rounding_moves_no_cosine_by_more_than_a_thousandth() -> None:
    vectors = _clusters(300)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    whole = rounded(vectors).astype(np.int64)
    assert np.abs(whole @ whole.T / neighbours.UNIT**2 - unit @ unit.T).max() < 1e-3
    assert not rounded(np.zeros((1, 4))).any()


def test_few_vectors_are_compared_exactly() -> None:
    vectors = rounded(_clusters(500)).astype(np.float32)
    search = Search(vectors, 7, min_recall=0.95)
    scores, positions = search(vectors[:50])
    assert scores.tolist() == _exact(vectors, vectors[:50], 7).tolist()
    assert (positions[:, 0] == np.arange(50)).all()
    assert search.recall.rate == 1.0
    assert search.recall.asked == 0
    assert Search(vectors[:3], 7, 0.95)(vectors)[1].shape == (500, 3)


@pytest.mark.parametrize("min_recall", [0.9, 1.0])
def test_codes_find_the_share_that_is_asked_for(monkeypatch: pytest.MonkeyPatch, min_recall: float) -> None:
    monkeypatch.setattr(neighbours, "FLAT_MAX", 1000)
    vectors = rounded(_clusters(3000)).astype(np.float32)
    search = Search(vectors, 10, min_recall)
    assert search.recall.rate >= min_recall
    scores, _ = search(vectors[::5])
    assert (scores >= _exact(vectors, vectors[::5], 10)[:, -1:]).mean() >= min_recall - 0.03


@pytest.mark.parametrize("flat_max", [1000, 10_000])
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, flat_max: int) -> None:
    monkeypatch.setattr(neighbours, "FLAT_MAX", flat_max)
    vectors = with_ties_broken(rounded(_clusters(5000)), np.arange(5000), 0)
    found = []
    for threads in (1, 2, 3):
        use_threads(threads)
        found.append(Search(vectors, 10, 0.9)(vectors))
    use_threads(1)
    for scores, positions in found[1:]:
        assert (scores == found[0][0]).all()
        assert (positions == found[0][1]).all()


def test_ties_are_broken_by_an_order_of_each_query_and_nothing_else() -> None:
    same = rounded(np.ones((400, 8)))
    keys = np.arange(400) * 7919
    search = Search(with_ties_broken(same, keys, 0), 10, 0.95)
    _, positions = search(with_ties_broken(same, keys, 1))
    in_degree = np.bincount(positions.reshape(-1), minlength=400)
    assert (in_degree > 0).mean() > 0.9  # 10 asked of 400 by 400: nearly all serve
    assert in_degree.max() < 60
    vectors = rounded(_clusters(400, dims=10))
    broken = with_ties_broken(vectors, keys, 0).astype(np.int64) @ with_ties_broken(vectors, keys, 1).astype(np.int64).T
    plain = vectors.astype(np.int64) @ vectors.astype(np.int64).T
    assert np.abs(broken - plain).max() <= 1.1 * neighbours._TIE_UNIT**2


@pytest.mark.parametrize(("flat_max", "dims"), [(10_000, 24), (1000, 24), (1000, 22)])
def test_a_stored_search_finds_the_nearest_rows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flat_max: int, dims: int
) -> None:
    monkeypatch.setattr(neighbours, "FLAT_MAX", flat_max)
    vectors = _clusters(3000, dims)
    whole = write_vectors(tmp_path, iter(np.array_split(vectors, 7)), len(vectors))
    assert (whole == rounded(vectors)).all()
    recall = write_codes(tmp_path, 10, 0.95)
    assert recall.rate >= 0.95
    search = StoredSearch(tmp_path)
    found = np.stack([search(vector, 10)[0] for vector in vectors[:100]])
    exact = _exact(whole, whole[:100], 10) / neighbours.UNIT**2
    assert (found >= exact[:, -1:] - 1e-6).mean() >= 0.93
    some = np.arange(5, 3000, 7)
    scores, rows = search(vectors[1].astype(np.float32), 4, some)
    assert np.allclose(scores, _exact(whole[some], whole[1:2], 4)[0] / neighbours.UNIT**2)
    assert set(rows.tolist()) <= set(some.tolist())


def test_too_few_vectors_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected vectors of 5 images, found 4: a defect"):
        write_vectors(tmp_path, iter([np.ones((4, 3))]), 5)
    assert not list(tmp_path.iterdir())
