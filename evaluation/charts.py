"""Small charts as inline SVG: text that a browser can search, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 50, 8, 8, 22
BUCKETS = 160


@dataclass(frozen=True)
class Line:
    """A measured quantity over training steps, or over a setting."""

    name: str
    """what was measured"""
    steps: Sequence[float]
    """steps, or values of the setting, rising"""
    values: Sequence[float]
    """one finite value per step"""


def line_chart(line: Line) -> str:
    """Return an SVG element with the mean of the values, and their range behind it, over the steps.

    Long runs are gathered into at most BUCKETS points, so that the page stays small.
    """
    place = _Place.of([line])
    buckets = _buckets(line.steps, line.values)
    upper = [place.point(step, top) for step, _, _, top in buckets]
    lower = [place.point(step, bottom) for step, _, bottom, _ in reversed(buckets)]
    return (
        f"{_open(WIDTH, HEIGHT, _said(line, buckets, 'step'))}{place.axes('step')}"
        f'<polygon class="band" points="{" ".join(upper + lower)}"/>'
        f'<polyline class="line" points="{place.points(buckets)}"/></svg>'
    )


def lines_chart(lines: Sequence[Line], colours: Sequence[str], axis: str, marked: float | None = None) -> str:
    """Return an SVG element with lines over each other, each in its colour; `marked` is a place on the axis.

    Long runs are gathered as in line_chart.
    """
    place = _Place.of(lines)
    gathered = [_buckets(line.steps, line.values) for line in lines]
    drawn = "".join(
        f'<polyline class="line" style="stroke: {colour}" points="{place.points(buckets)}"/>'
        for buckets, colour in zip(gathered, colours, strict=True)
    )
    if marked is not None and place.first <= marked <= place.last:
        x = f"{place.x(marked):.1f}"
        drawn = f'<line class="mark" x1="{x}" x2="{x}" y1="{TOP}" y2="{HEIGHT - BOTTOM}"/>{drawn}'
    label = "; ".join(_said(line, buckets, axis) for line, buckets in zip(lines, gathered, strict=True))
    return f"{_open(WIDTH, HEIGHT, label)}{place.axes(axis)}{drawn}</svg>"


def column_chart(labels: Sequence[str], counts: Sequence[int], what: str) -> str:
    """Return an SVG element with a column per label, in the order given; `what` is counted in each."""
    width, height, bottom = 560, 190, 34
    low, high = 0.0, max([*counts, 1]) * 1.05
    step = (width - LEFT - RIGHT) / max(len(labels), 1)
    every = math.ceil(len(labels) / 14)

    def y(value: float) -> float:
        return TOP + (height - TOP - bottom) * (high - value) / high

    grid = _grid({_brief(tick): y(tick) for tick in ticks(low, high)}, width)
    columns = "".join(
        f'<rect class="column" x="{LEFT + step * (at + 0.1):.1f}" y="{y(count):.1f}" width="{step * 0.8:.1f}" '
        f'height="{y(0) - y(count):.1f}"><title>{escape(label)}: {count:,}</title></rect>'
        for at, (label, count) in enumerate(zip(labels, counts, strict=True))
    )
    names = "".join(
        f'<text class="tick" x="{LEFT + step * (at + 0.5):.1f}" y="{height - 18}" text-anchor="middle">'
        f"{escape(label)}</text>"
        for at, label in enumerate(labels)
        if at % every == 0
    )
    axis = f'<text class="tick" x="{width - RIGHT}" y="{height - 3}" text-anchor="end">{escape(what)}</text>'
    most = max(range(len(labels)), key=lambda at: counts[at], default=None)
    label = f"{what}: most at {labels[most]}, {counts[most]:,}" if most is not None else what
    return f"{_open(width, height, label, 'columns')}{grid}{columns}{names}{axis}</svg>"


def confusion_map(names: Sequence[str], count_CC: Sequence[Sequence[int]]) -> str:
    """Return an SVG element with a square per true class (row) and predicted class (column).

    Its shade is the share of the true class's pixels; the diagonal, what is right, has a colour of its own. A class
    without a true pixel has no row.
    """
    shares = {a: [count / sum(row) for count in row] for a, row in enumerate(count_CC) if sum(row)}
    cell = 26 if len(names) <= 25 else 14
    left, top = 110, 100
    columns = "".join(
        f'<text class="tick" transform="translate({left + cell * (b + 0.6):.0f} {top - 6}) rotate(-60)">'
        f"{escape(name)}</text>"
        for b, name in enumerate(names)
    )
    rows = "".join(
        f'<text class="tick" x="{left - 6}" y="{top + cell * (row + 0.65):.0f}" text-anchor="end">'
        f"{escape(names[a])}</text>"
        for row, a in enumerate(shares)
    )
    cells = "".join(
        f'<rect class="{"cell" if a == b else "cell wrong"}" x="{left + cell * b}" y="{top + cell * row}" '
        f'width="{cell - 1}" height="{cell - 1}" fill-opacity="{share:.2f}">'
        f"<title>{escape(names[a])} called {escape(names[b])}: {100 * share:.1f} %</title></rect>"
        for row, (a, of_row) in enumerate(shares.items())
        for b, share in enumerate(of_row)
    )
    view_width, view_height = left + cell * len(names) + 50, top + cell * len(shares) + 4
    label = f"what the pixels of {len(shares)} true classes were called"
    return f"{_open(view_width, view_height, label, 'heat')}{columns}{rows}{cells}</svg>"


def heat_map(names: Sequence[str], together: Sequence[Sequence[int]]) -> str:
    """Return an SVG element with a square per pair of names: the share of the row's that has the column's too.

    `together[a][b]` counts both, `together[a][a]` the one; the diagonal is left empty. Shades follow the square root of
    the share, so that rare pairs are told from none.
    """
    cell, left, top = 26, 96, 86
    shares = [
        [together[a][b] / together[a][a] if together[a][a] and a != b else 0.0 for b in range(len(names))]
        for a in range(len(names))
    ]
    most = max((share for row in shares for share in row), default=0.0) or 1.0
    rows = "".join(
        f'<text class="tick" x="{left - 6}" y="{top + cell * a + 17}" text-anchor="end">{escape(name)}</text>'
        f'<text class="tick" transform="translate({left + cell * a + 16} {top - 6}) rotate(-60)">{escape(name)}</text>'
        for a, name in enumerate(names)
    )
    cells = "".join(
        f'<rect class="{"cell" if a != b else "cell own"}" x="{left + cell * b}" y="{top + cell * a}" '
        f'width="{cell - 1}" height="{cell - 1}" fill-opacity="{math.sqrt(shares[a][b] / most):.2f}">'
        f"<title>{escape(names[a])} with {escape(names[b])}: {together[a][b]:,} ({100 * shares[a][b]:.1f} %)</title>"
        f"</rect>"
        for a in range(len(names))
        for b in range(len(names))
    )
    bottom = top + cell * len(names) + 16
    key = f'<text class="tick" x="{left}" y="{bottom}">white: none; darkest: {100 * most:.1f} %</text>'
    label = f"how often {len(names)} names occur together; the darkest square is {100 * most:.1f} %"
    return f"{_open(left + cell * len(names) + 40, bottom + 6, label, 'heat')}{rows}{cells}{key}</svg>"


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return round numbers between low and high, about as many as wanted."""
    rough = (high - low) / wanted
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    return [count * step for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Place:
    # Where steps and values lie in a chart of WIDTH x HEIGHT.
    first: float
    last: float
    low: float
    high: float

    @classmethod
    def of(cls, lines: Sequence[Line]) -> _Place:
        values = [value for line in lines for value in line.values]
        low, high = _widened(min(values), max(values))
        return cls(min(line.steps[0] for line in lines), max(line.steps[-1] for line in lines), low, high)

    def x(self, step: float) -> float:
        share = (step - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return LEFT + (WIDTH - LEFT - RIGHT) * share

    def y(self, value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (self.high - value) / (self.high - self.low)

    def point(self, step: float, value: float) -> str:
        return f"{self.x(step):.1f},{self.y(value):.1f}"

    def points(self, buckets: Sequence[tuple[float, float, float, float]]) -> str:
        return " ".join(self.point(step, mean) for step, mean, _, _ in buckets)

    def axes(self, axis: str) -> str:
        ends = ((LEFT, "start", _short(self.first)), (WIDTH - RIGHT, "end", f"{axis} {_short(self.last)}"))
        return _grid({_short(tick): self.y(tick) for tick in ticks(self.low, self.high)}, WIDTH) + "".join(
            f'<text class="tick" x="{x}" y="{HEIGHT - 6}" text-anchor="{anchor}">{escape(text)}</text>'
            for x, anchor, text in ends
        )


def _open(width: float, height: float, label: str, kind: str = "chart") -> str:
    return f'<svg class="{kind}" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'


def _said(line: Line, buckets: Sequence[tuple[float, float, float, float]], axis: str) -> str:
    first, last, start, end = map(_short, (line.steps[0], line.steps[-1], buckets[0][1], buckets[-1][1]))
    return f"{line.name}: from {start} at {axis} {first} to {end} at {axis} {last}"


def _grid(heights: Mapping[str, float], width: int) -> str:
    # Horizontal lines at the heights, each with its label on the left.
    return "".join(
        f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{label}</text>'
        for label, y in heights.items()
    )


def _buckets(steps: Sequence[float], values: Sequence[float]) -> list[tuple[float, float, float, float]]:
    # (middle step, mean, lowest, highest) of equal runs of steps.
    size = math.ceil(len(steps) / BUCKETS)
    runs = [range(start, min(start + size, len(steps))) for start in range(0, len(steps), size)]
    found = []
    for run in runs:
        part = values[run.start : run.stop]
        middle = (steps[run.start] + steps[run.stop - 1]) / 2
        found.append((middle, sum(part) / len(part), min(part), max(part)))
    return found


def _widened(low: float, high: float) -> tuple[float, float]:
    margin = 0.04 * (high - low) or max(abs(high), 1.0) * 0.1
    return low - margin, high + margin


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _brief(value: float) -> str:
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"
