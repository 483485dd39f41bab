from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curation.draw import Slices, draw_uniform, jump_hash

ENTITIES = 5
Images = list[set[int]]
images_of = st.lists(st.sets(st.integers(0, ENTITIES - 1), max_size=3), min_size=1, max_size=30)


def _slices(images: Images) -> Slices:
    entries = sorted((entity, row) for row, entities in enumerate(images) for entity in entities)
    codes, rows = np.array(entries, np.int64).reshape(-1, 2).T
    return Slices.of(codes, rows, ENTITIES, len(images)).shared()


def _keys(count: int) -> np.ndarray:
    return np.arange(count) * 7919 + 13


@settings(deadline=None)
@given(images=images_of, seed=st.integers(0, 2**32))
def test_no_image_is_its_own_partner_and_each_shares_the_entity(images: Images, seed: int) -> None:
    rows = np.arange(len(images))
    partners, entities = draw_uniform(_slices(images), rows, _keys(len(images)), 4, seed)
    counts = Counter(entity for each in images for entity in each)
    for row, own in enumerate(images):
        if not any(counts[entity] > 1 for entity in own):
            assert partners[row].tolist() == entities[row].tolist() == [-1] * 4
            continue
        for partner, entity in zip(partners[row], entities[row], strict=True):
            assert partner != row
            assert entity in own & images[partner]


@settings(deadline=None)
@given(images=images_of, seed=st.integers(0, 99), cut=st.integers(0, 30))
def test_draws_do_not_depend_on_how_rows_are_split(images: Images, seed: int, cut: int) -> None:
    slices, rows, keys = _slices(images), np.arange(len(images)), _keys(len(images))
    whole = draw_uniform(slices, rows, keys, 3, seed)
    halves = [draw_uniform(slices, part, keys[part], 3, seed) for part in (rows[:cut], rows[cut:])]
    for k in range(2):
        assert np.concatenate([half[k] for half in halves]).tolist() == whole[k].tolist()


def test_an_image_that_arrives_later_changes_a_draw_only_by_being_drawn() -> None:
    images = [{0}] * 40
    before, _ = draw_uniform(_slices(images), np.arange(40), _keys(40), 10, 0)
    after, _ = draw_uniform(_slices([{0}] * 41), np.arange(40), _keys(40), 10, 0)
    changed = before != after
    assert (after[changed] == 40).all()
    assert 0 < changed.mean() < 0.06  # 1 in 40 is expected


def test_draw_has_the_distribution_of_the_plain_loop() -> None:
    images: Images = [{0}, {0, 1}, {0, 1, 2}, {1}, {2}, {0}]
    num_draws = 20_000
    keys = np.arange(num_draws) * 104_729
    row = 2
    partners, entities = draw_uniform(_slices(images), np.full(num_draws, row), keys, 1, 0)
    drawn = Counter(zip(entities[:, 0].tolist(), partners[:, 0].tolist(), strict=True))
    # The paper's draw without the image itself: an entity of the image, then one of the others that have it.
    expected = {
        (entity, other): num_draws / len(images[row]) / (sum(entity in each for each in images) - 1)
        for entity in images[row]
        for other, has in enumerate(images)
        if entity in has and other != row
    }
    assert drawn.keys() == expected.keys()
    assert stats.chisquare([drawn[pair] for pair in expected], list(expected.values())).pvalue > 0.001


def test_different_seeds_and_draws_of_one_image_differ() -> None:
    slices = _slices([{0}] * 1000)
    first, second = (draw_uniform(slices, np.arange(1000), _keys(1000), 10, seed)[0] for seed in (0, 1))
    assert (first == second).mean() < 0.01
    assert np.mean([len(set(row)) for row in first]) > 9.9


@given(values=st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50), size=st.integers(1, 10**6))
def test_jump_hash_equals_the_published_loop(values: list[int], size: int) -> None:
    def plain(key: int) -> int:
        b, j = -1, 0
        while j < size:
            b = j
            key = (key * 2862933555777941757 + 1) % 2**64
            j = int((b + 1) * (2**31 / ((key >> 33) + 1)))
        return b

    found = jump_hash(np.array(values, np.uint64), np.full(len(values), size))
    assert found.tolist() == [plain(value) for value in values]
