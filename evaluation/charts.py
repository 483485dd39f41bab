"""Small line charts as inline SVG: text that a browser can search, the same bytes for the same numbers."""

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
