from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from curation.draw import Slices, consistent_position, draw_uniform

ENTITIES = 5
Images = list[set[int]]
images_of = st.lists(st.sets(st.integers(0, ENTITIES - 1), max_size=3), min_size=1, max_size=30)


def _slices(images: Images, groups: list[int] | None = None) -> Slices:
    entries = sorted((entity, row) for row, entities in enumerate(images) for entity in entities)
    codes, rows = np.array(entries, np.int64).reshape(-1, 2).T
    return Slices.of(codes, rows, ENTITIES, len(images), None if groups is None else np.array(groups)).shared()


def _draw(slices: Slices, rows: Any, keys: Any, num_partners: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    return slices.partners(draw_uniform(slices, np.asarray(rows), keys, num_partners, seed))


def _keys(count: int) -> np.ndarray:
    return np.arange(count) * 7919 + 13


@settings(deadline=None)
@given(images=images_of, seed=st.integers(0, 2**32))
def test_no_image_is_its_own_partner_and_each_shares_the_entity(images: Images, seed: int) -> None:
    rows = np.arange(len(images))
    partners, entities = _draw(_slices(images), rows, _keys(len(images)), 4, seed)
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
    whole = _draw(slices, rows, keys, 3, seed)
    halves = [_draw(slices, part, keys[part], 3, seed) for part in (rows[:cut], rows[cut:])]
    for k in range(2):
        assert np.concatenate([half[k] for half in halves]).tolist() == whole[k].tolist()


def test_an_image_that_arrives_later_changes_a_draw_only_by_being_drawn() -> None:
    images = [{0}] * 40
    before, _ = _draw(_slices(images), np.arange(40), _keys(40), 10, 0)
    after, _ = _draw(_slices([{0}] * 41), np.arange(40), _keys(40), 10, 0)
    changed = before != after
    assert (after[changed] == 40).all()
    assert 0 < changed.mean() < 0.06  # 1 in 40 is expected


def test_draw_has_the_distribution_of_the_plain_loop() -> None:
    images: Images = [{0}, {0, 1}, {0, 1, 2}, {1}, {2}, {0}]
    num_draws = 20_000
    keys = np.arange(num_draws) * 104_729
    row = 2
    partners, entities = _draw(_slices(images), np.full(num_draws, row), keys, 1, 0)
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
    first, second = (_draw(slices, np.arange(1000), _keys(1000), 10, seed)[0] for seed in (0, 1))
    assert (first == second).mean() < 0.01
    assert np.mean([len(set(row)) for row in first]) > 9.9


@given(images=images_of, seed=st.integers(0, 99), data=st.data())
def test_no_partner_is_a_duplicate_and_one_stands_for_all(images: Images, seed: int, data: st.DataObject) -> None:
    groups = [data.draw(st.integers(0, row), label="group") for row in range(len(images))]
    groups = [groups[group] if groups[group] < group else group for group in groups]
    slices = _slices(images, groups)
    partners, entities = _draw(slices, np.arange(len(images)), _keys(len(images)), 4, seed)
    for row, own in enumerate(images):
        may_be = {
            (entity, other)
            for entity in own
            for other in range(len(images))
            if entity in images[other]
            and groups[other] != groups[row]
            and not any(groups[earlier] == groups[other] and entity in images[earlier] for earlier in range(other))
        }
        drawn = set(zip(entities[row].tolist(), partners[row].tolist(), strict=True))
        assert drawn <= may_be if may_be else drawn == {(-1, -1)}


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 9, 100, 1000])
def test_positions_are_uniform_and_one_more_takes_its_share_only(size: int) -> None:
    num_draws = 200_000
    hashes = np.random.default_rng(0).integers(2**64, size=num_draws, dtype=np.uint64)
    before, after = (consistent_position(hashes, np.full(num_draws, n)) for n in (size, size + 1))
    counts = np.bincount(before, minlength=size)
    assert len(counts) == size
    assert size == 1 or stats.chisquare(counts).pvalue > 0.001
    moved = before != after
    assert (after[moved] == size).all()
    assert abs(moved.mean() * (size + 1) - 1) < 5 * ((size + 1) / num_draws) ** 0.5


@given(hashes=st.lists(st.integers(0, 2**64 - 1), min_size=1), sizes=st.lists(st.integers(1, 2**40), min_size=1))
def test_positions_stay_below_their_size_and_do_not_depend_on_each_other(hashes: list[int], sizes: list[int]) -> None:
    count = min(len(hashes), len(sizes))
    values, limits = np.array(hashes[:count], np.uint64), np.array(sizes[:count])
    together = consistent_position(values, limits)
    assert ((together >= 0) & (together < limits)).all()
    alone = [consistent_position(values[n : n + 1], limits[n : n + 1])[0] for n in range(count)]
    assert together.tolist() == alone
