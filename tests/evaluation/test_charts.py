"""Line charts: where points land, and what is said about them."""

from __future__ import annotations

import re

import pytest

from evaluation.charts import BUCKETS, Line, line_chart, ticks


def _points(svg: str) -> list[list[float]]:
    found = re.search(r'<polyline class="line" points="([^"]*)"', svg)
    assert found
    return [[float(number) for number in point.split(",")] for point in found[1].split()]


def test_points_run_from_left_to_right_and_larger_is_higher() -> None:
    (x0, y0), (x1, y1), (x2, y2) = _points(line_chart(Line("loss", [1, 2, 3], [3.0, 1.0, 2.0])))
    assert x0 < x1 < x2
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 < y2 < y1
    assert y1 - y2 == pytest.approx(y2 - y0, abs=0.11)


def test_a_long_run_is_gathered_into_few_points_with_its_range() -> None:
    steps = list(range(1, 12_801))
    svg = line_chart(Line("loss", steps, [float(step % 2) for step in steps]))
    points = _points(svg)
    assert len(points) == BUCKETS == 12_800 / 80
    assert len({y for _, y in points}) == 1
    assert len(svg) < 12_000


@pytest.mark.parametrize(("steps", "values"), [([5], [0.0]), ([1, 2], [7.0, 7.0]), ([0, 1], [-1e-9, 1e9])])
def test_awkward_values_still_make_a_chart(steps: list[int], values: list[float]) -> None:
    assert "nan" not in line_chart(Line("loss", steps, values))


def test_the_label_says_what_the_eye_sees() -> None:
    svg = line_chart(Line("loss <a>", [1, 1000], [4.25, 0.5]))
    assert 'aria-label="loss &lt;a&gt;: from 4.25 at step 1 to 0.5 at step 1,000"' in svg


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (0.9, 3.1, [1, 2, 3]), (-5, 5, [-5, -2.5, 0, 2.5, 5])],
)
def test_ticks_are_round_numbers_inside_the_range(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected)
