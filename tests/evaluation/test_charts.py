"""Line charts: where points land, and what is said about them."""

from __future__ import annotations

import re

import pytest

from evaluation.charts import BUCKETS, Line, column_chart, confusion_map, heat_map, line_chart, lines_chart, ticks


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


def test_columns_stand_in_the_order_given_and_taller_is_more() -> None:
    svg = column_chart(["0–4", "5–9", "10–14"], [10, 40, 20], "words <b>")
    places = [
        (float(x), float(height)) for x, height in re.findall(r'class="column" x="([^"]*)".*?height="([^"]*)"', svg)
    ]
    assert [x for x, _ in places] == sorted(x for x, _ in places)
    assert [height / places[0][1] for _, height in places] == pytest.approx([1, 4, 2], rel=0.02)
    assert 'aria-label="words &lt;b&gt;: most at 5–9, 40"' in svg
    assert "<title>10–14: 20</title>" in svg


def test_a_chart_of_nothing_is_a_chart() -> None:
    assert "nan" not in column_chart([], [], "words") + column_chart(["0–4"], [0], "words") + heat_map([], [])


def test_a_square_is_as_dark_as_the_root_of_its_share_of_the_row() -> None:
    # Of 10 cats 4 are with a dog; of 40 dogs the same 4.
    svg = heat_map(["cat", "dog"], [[10, 4], [4, 40]])
    cells = re.findall(r'class="(cell[^"]*)".*?fill-opacity="([^"]*)"><title>([^<]*)<', svg)
    assert [(kind, title) for kind, _, title in cells] == [
        ("cell own", "cat with cat: 10 (0.0 %)"),
        ("cell", "cat with dog: 4 (40.0 %)"),
        ("cell", "dog with cat: 4 (10.0 %)"),
        ("cell own", "dog with dog: 40 (0.0 %)"),
    ]
    assert [float(opacity) for _, opacity, _ in cells] == [0, 1, 0.5, 0]
    assert "darkest: 40.0 %" in svg


def test_lines_over_each_other_share_their_axes() -> None:
    svg = lines_chart(
        [Line("a", [0, 10], [1.0, 1.0]), Line("b", [5, 10], [0.0, 2.0])], ["#ff0000", "#0000ff"], "step", marked=5
    )
    drawn = re.findall(r'style="stroke: ([^"]*)" points="([^"]*)"', svg)
    assert [colour for colour, _ in drawn] == ["#ff0000", "#0000ff"]
    a, b = ([[float(number) for number in point.split(",")] for point in points.split()] for _, points in drawn)
    assert a[1][0] == b[1][0] == a[0][0] + 2 * (b[0][0] - a[0][0])
    assert b[1][1] < a[0][1] == a[1][1] < b[0][1]
    mark = re.search(r'class="mark" x1="([^"]*)" x2="([^"]*)"', svg)
    assert mark
    assert float(mark[1]) == float(mark[2]) == b[0][0]
    assert "a: from 1 at step 0 to 1 at step 10; b: from 0 at step 5 to 2 at step 10" in svg


def test_a_mark_beyond_the_axis_is_not_drawn() -> None:
    assert 'class="mark"' not in lines_chart([Line("a", [0, 1], [0.0, 1.0])], ["#ff0000"], "threshold", marked=2)


def test_a_square_of_confusion_is_the_share_of_the_true_class() -> None:
    # No true pixel is a bus, so it has no row.
    svg = confusion_map(["cat", "dog", "bus"], [[3, 1, 0], [0, 2, 2], [0, 0, 0]])
    cells = re.findall(r'class="(cell[^"]*)".*?fill-opacity="([^"]*)"><title>([^<]*)<', svg)
    assert cells == [
        ("cell", "0.75", "cat called cat: 75.0 %"),
        ("cell wrong", "0.25", "cat called dog: 25.0 %"),
        ("cell wrong", "0.00", "cat called bus: 0.0 %"),
        ("cell wrong", "0.00", "dog called cat: 0.0 %"),
        ("cell", "0.50", "dog called dog: 50.0 %"),
        ("cell wrong", "0.50", "dog called bus: 50.0 %"),
    ]
    assert "nan" not in confusion_map([], [])
