from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from curation.draw import Slices
from curation.neighbours import rounded, use_threads
from curation.similar import chosen, cosines, nearest_slots, preferred

ENTITIES = 4
Images = list[set[int]]
images_of = st.lists(st.sets(st.integers(0, ENTITIES - 1), max_size=3), min_size=1, max_size=25)


def _slices(images: Images, groups: np.ndarray | None = None) -> Slices:
    entries = sorted((entity, row) for row, entities in enumerate(images) for entity in entities)
    codes, rows = np.array(entries, np.int64).reshape(-1, 2).T
    return Slices.of(codes, rows, ENTITIES, len(images), groups).shared()


def _keys(count: int) -> np.ndarray:
    return np.arange(count) * 7919 + 13


def _vectors(count: int, levels: int = 3) -> np.ndarray:
    return rounded(np.random.default_rng(0).integers(levels, size=(count, 6)) + 0.1)


def _preferences(slices: Slices, vectors: np.ndarray, folder: Path, near: int, seed: int) -> Any:
    keys = _keys(len(vectors))
    names = [str(code) for code in range(ENTITIES)]
    nearest, _ = nearest_slots(slices, vectors, keys, near, 0.95, seed, names, folder)
    return preferred(slices, nearest, np.arange(len(vectors)), keys, near, seed)


@given(images=images_of, seed=st.integers(0, 99), near=st.integers(1, 8), num_groups=st.integers(1, 25))
def test_preferences_are_other_images_of_an_entity_once_each(
    tmp_path_factory: Any, images: Images, seed: int, near: int, num_groups: int
) -> None:
    count = len(images)
    groups = np.arange(count) % num_groups
    slices, vectors = _slices(images, groups), _vectors(count)
    found = []
    for threads in (1, 2):
        use_threads(threads)
        found.append(_preferences(slices, vectors, tmp_path_factory.mktemp("similar") / "scratch", near, seed))
    assert (found[0] == found[1]).all()
    partners, entities = slices.partners(found[0])
    for row, own in enumerate(images):
        drawn = [(int(p), int(e)) for p, e in zip(partners[row], entities[row], strict=True) if p >= 0]
        others = {p for p in range(count) for e in own if e in images[p] and groups[p] != groups[row]}
        assert len({partner for partner, _ in drawn}) == len(drawn)
        assert all(partner in others and entity in own & images[partner] for partner, entity in drawn)
        # As many as are asked for, unless there are fewer images that may be: one of each group.
        assert len(drawn) >= min(
            near, max((len({groups[p] for p in others if e in images[p]}) for e in own), default=0)
        )


def test_the_nearest_of_each_entity_are_preferred_in_turn(tmp_path: Path) -> None:
    generator = np.random.default_rng(1)
    images: Images = [{0, 1} if row % 5 == 0 else {row % 2} for row in range(60)]
    vectors = rounded(generator.standard_normal((60, 6)))
    slices, near = _slices(images), 4
    partners, entities = slices.partners(_preferences(slices, vectors, tmp_path / "scratch", near, 0))
    scores = vectors.astype(np.int64) @ vectors.astype(np.int64).T
    for row, own in enumerate(images):
        nearest = {
            entity: set(
                sorted((o for o in range(60) if o != row and entity in images[o]), key=lambda o: -scores[row, o])[:near]
            )
            for entity in own
        }
        assert all(int(p) in nearest[int(e)] for p, e in zip(partners[row], entities[row], strict=True))
        if len(own) == 2 and not nearest[0] & nearest[1]:
            assert entities[row].tolist() in ([0, 1, 0, 1], [1, 0, 1, 0])


def test_an_image_that_arrives_later_changes_at_most_one_choice(tmp_path: Path) -> None:
    vectors = rounded(np.random.default_rng(2).standard_normal((81, 6)))
    chosen_of = []
    for count in (80, 81):
        slices = _slices([{0}] * count)
        preferences = _preferences(slices, vectors[:count], tmp_path / str(count), 8, 0)
        granted = chosen(preferences, slices, _keys(count), 3, None, 0)
        rows, _ = slices.partners(np.where(granted, preferences, -1))
        chosen_of.append([{int(p) for p in row if p >= 0} for row in rows])
    lost = [len(before - after) for before, after in zip(chosen_of[0], chosen_of[1][:80], strict=True)]
    assert max(lost) == 1
    assert sum(lost) < 30  # 80 x 3 choices; the new image is near to a tenth of the others


@given(images=images_of, seed=st.integers(0, 9), cap=st.integers(1, 4), num_partners=st.integers(1, 4))
def test_a_cap_is_kept_and_leaves_no_wish_that_both_sides_share(
    tmp_path_factory: Any, images: Images, seed: int, cap: int, num_partners: int
) -> None:
    slices, keys = _slices(images), _keys(len(images))
    preferences = _preferences(slices, _vectors(len(images)), tmp_path_factory.mktemp("cap") / "scratch", 6, seed)
    granted = chosen(preferences, slices, keys, num_partners, cap, seed)
    partners, _ = slices.partners(preferences)
    serves = Counter(partners[granted].tolist())
    assert max(serves.values(), default=0) <= cap
    for row in range(len(images)):
        assert granted[row].sum() <= num_partners
        if granted[row].sum() < num_partners:  # it asked all: each that refused serves as often as it may
            refused = partners[row][~granted[row] & (partners[row] >= 0)]
            assert all(serves[partner] == cap for partner in refused.tolist())
    without = chosen(preferences, slices, keys, num_partners, None, seed)
    assert (without == ((preferences >= 0) & (np.arange(preferences.shape[1]) < num_partners))).all()


def test_a_killed_search_goes_on_with_the_entities_that_are_left(tmp_path: Path) -> None:
    slices, vectors = _slices([{0, 1}, {0}, {1}, {0, 1}]), _vectors(4)
    whole = _preferences(slices, vectors, tmp_path / "scratch", 3, 0)
    paths = sorted((tmp_path / "scratch").iterdir())
    assert [path.name for path in paths] == ["00000.npz", "00001.npz"]
    paths[1].unlink()
    kept = paths[0].stat().st_mtime_ns
    assert (_preferences(slices, vectors, tmp_path / "scratch", 3, 0) == whole).all()
    assert paths[0].stat().st_mtime_ns == kept


def test_cosines_are_those_of_the_vectors() -> None:
    vectors = rounded(np.random.default_rng(0).standard_normal((9, 5)))
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    partners = np.array([[1, 2], [0, 8]], np.int32)
    found = cosines(vectors, np.array([4, 7]), partners)
    assert np.allclose(found, [[unit[4] @ unit[p] for p in (1, 2)], [unit[7] @ unit[p] for p in (0, 8)]], atol=2e-3)
