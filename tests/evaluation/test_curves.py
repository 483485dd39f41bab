"""Lines of what training has measured."""

from __future__ import annotations

import json
from pathlib import Path

from evaluation.charts import Line
from evaluation.curves import curves, ends, read_metrics


def test_rows_are_read_up_to_the_last_whole_one(tmp_path: Path) -> None:
    assert read_metrics(tmp_path) == []
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"step": 1, "total": 2.0}) + '\n{"step": 2, "tot')
    assert read_metrics(tmp_path) == [{"step": 1, "total": 2.0}]


def test_each_quantity_is_a_line_over_the_steps_that_have_it() -> None:
    rows = [
        {"step": 1, "total": 2.0, "mask": None, "unknown": 1.0},
        {"step": 2, "total": float("nan"), "mask": 0.5},
        {"step": 3, "total": 1.0, "mask": 0.25},
    ]
    assert curves(rows) == {
        "total": Line("total loss", [1, 3], [2.0, 1.0]),
        "mask": Line("mask consistency", [2, 3], [0.5, 0.25]),
    }


def test_the_ends_of_a_line_are_means_of_a_twentieth() -> None:
    assert ends(Line("loss", range(40), [float(step) for step in range(40)])) == (0.5, 38.5)
    assert ends(Line("loss", [1, 2], [3.0, 4.0])) == (3.0, 4.0)
