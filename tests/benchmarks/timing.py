"""Time functions side by side, so that a ratio holds on a noisy machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def median_s(*functions: Callable[[], object], rounds: int = 5) -> list[float]:
    """Return the median wall time of each function, called in turn A B A B ..., after one call of each to warm up."""
    times: list[list[float]] = [[] for _ in functions]
    for round_number in range(rounds + 1):
        for taken, function in zip(times, functions, strict=True):
            begun = time.perf_counter()
            function()
            if round_number:
                taken.append(time.perf_counter() - begun)
    return [statistics.median(taken) for taken in times]


def row(what: str, count: int, seconds: float, unit: str, against: str = "", other_s: float | None = None) -> list[str]:
    """Return a line of the table: `count` units in `seconds`, compared with the same work in `other_s`."""
    ratio = "" if other_s is None else f"{other_s / seconds:.2f}"
    other = "" if other_s is None else f"{against}: {_rate(count / other_s)}"
    return [what, f"{_rate(count / seconds)} {unit}/s", other or against, ratio]


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.2f}"
