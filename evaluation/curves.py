"""What training has measured, as lines over its steps."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from evaluation.charts import Line

PHASES = ("phase1", "phase2")
CURVES = {
    "total": "total loss",
    "contrastive": "contrastive loss",
    "entity": "entity completion",
    "nouns": "noun prompts",
    "words": "masked words",
    "mask": "mask consistency",
    "validation_miou": "mIoU on the validation images",
    "lr": "learning rate",
    "samples_per_s": "images per second",
    "memory_mb": "memory at most, MB",
}
"""name in metrics.jsonl -> title"""


def read_metrics(phase_dir: Path) -> list[dict[str, Any]]:
    """Return the rows of a phase's metrics.jsonl so far; a last one that is not whole yet is left out."""
    path = phase_dir / "metrics.jsonl"
    if not path.exists():
        return []
    return [json.loads(text) for text in path.read_text().splitlines() if text.endswith("}")]


def curves(rows: list[dict[str, Any]]) -> dict[str, Line]:
    """Return the quantities that were measured, by their name in metrics.jsonl; what is not finite is left out."""
    found = {}
    for name, title in CURVES.items():
        points = [(row["step"], row[name]) for row in rows if _is_finite(row.get(name))]
        if points:
            found[name] = Line(title, *map(list, zip(*points, strict=True)))
    return found


def ends(line: Line) -> tuple[float, float]:
    """Return the means of the first and of the last twentieth of a line's values."""
    share = max(1, len(line.values) // 20)
    return sum(line.values[:share]) / share, sum(line.values[-share:]) / share


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
