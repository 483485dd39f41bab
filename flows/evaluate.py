"""Stage: trained models and a benchmark folder to evaluation/."""

from pathlib import Path
from typing import Any

from prefect import flow

import evaluation.evaluate
from evaluation.config import Protocol


@flow(name="evaluate")
def evaluate(
    model_dirs: dict[str, Path], benchmark: str, root: Path, out_dir: Path, protocol: Protocol = Protocol()
) -> dict[str, Any]:
    """Measure models, and the baselines beside them, on a benchmark they have never seen."""
    return evaluation.evaluate.evaluate(model_dirs, benchmark, root, out_dir, protocol)
