"""Small charts as inline SVG: text that a browser can search, the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 50, 8, 8, 22
BUCKETS = 160


@dataclass(frozen=True)
class Line:
    """A measured quantity over training steps."""

    name: str
    """what was measured"""
    steps: list[int]
    """steps, rising"""
    values: list[float]
    """one finite value per step"""


def line_chart(line: Line) -> str:
    """Return an SVG element with the mean of the values, and their range behind it, over the steps.

    Long runs are gathered into at most BUCKETS points, so that the page stays small.
    """
    first, last = line.steps[0], line.steps[-1]
    low, high = _widened(min(line.values), max(line.values))
    buckets = _buckets(line.steps, line.values)

    def x(step: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * ((step - first) / (last - first) if last > first else 0.5)

    def y(value: float) -> float:
        return TOP + (HEIGHT - TOP - BOTTOM) * (high - value) / (high - low)

    mean = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value, _, _ in buckets)
    upper = [f"{x(step):.1f},{y(top):.1f}" for step, _, _, top in buckets]
    lower = [f"{x(step):.1f},{y(bottom):.1f}" for step, _, bottom, _ in reversed(buckets)]
    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_short(tick)}</text>'
        for tick in ticks(low, high)
    )
    ends = "".join(
        f'<text class="tick" x="{place}" y="{HEIGHT - 6}" text-anchor="{anchor}">{text}</text>'
        for place, anchor, text in (
            (LEFT, "start", f"{first:,}"),
            (WIDTH - RIGHT, "end", f"step {last:,}"),
        )
    )
    label = f"{line.name}: from {_short(buckets[0][1])} at step {first:,} to {_short(buckets[-1][1])} at step {last:,}"
    return (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(label)}">{grid}{ends}'
        f'<polygon class="band" points="{" ".join(upper + lower)}"/><polyline class="line" points="{mean}"/></svg>'
    )


def column_chart(labels: Sequence[str], counts: Sequence[int], what: str) -> str:
    """Return an SVG element with a column per label, in the order given; `what` is counted in each."""
    width, height, bottom = 560, 190, 34
    low, high = 0.0, max([*counts, 1]) * 1.05
    step = (width - LEFT - RIGHT) / max(len(labels), 1)
    every = math.ceil(len(labels) / 14)

    def y(value: float) -> float:
        return TOP + (height - TOP - bottom) * (high - value) / high

    grid = "".join(
        f'<line class="grid" x1="{LEFT}" x2="{width - RIGHT}" y1="{y(tick):.1f}" y2="{y(tick):.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{_brief(tick)}</text>'
        for tick in ticks(low, high)
    )
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
    return (
        f'<svg class="columns" viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">'
        f"{grid}{columns}{names}{axis}</svg>"
    )


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
    view = f"0 0 {left + cell * len(names) + 40} {bottom + 6}"
    label = f"how often {len(names)} names occur together; the darkest square is {100 * most:.1f} %"
    return f'<svg class="heat" viewBox="{view}" role="img" aria-label="{escape(label)}">{rows}{cells}{key}</svg>'


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Return round numbers between low and high, about as many as wanted."""
    rough = (high - low) / wanted
    magnitude = 10 ** math.floor(math.log10(rough))
    step = next(factor * magnitude for factor in (1, 2, 2.5, 5, 10) if factor * magnitude >= rough * 0.999)
    return [count * step for count in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)]


def _buckets(steps: Sequence[int], values: Sequence[float]) -> list[tuple[float, float, float, float]]:
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
