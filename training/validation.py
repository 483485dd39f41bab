"""Zero-shot mIoU while a phase trains, on images that its figure is not taken from, and the best model so far."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from evaluation.benchmarks import get_benchmark
from evaluation.config import Protocol
from evaluation.validate import spread_positions, validate
from model import OVSegmentor
from training import state
from training.config import ValidationConfig

BEST = "best"
RECORD = "validation.json"


class Validation:
    """Measures the model every so many steps and keeps the best in the run's folder `best/`.

    Raises: FileNotFoundError or ValueError when the benchmark's folder or its split is not there.
    """

    def __init__(self, config: ValidationConfig, run_dir: Path) -> None:
        if config.benchmark is None or config.root is None:
            raise ValueError(
                f"validation.benchmark = {config.benchmark!r}, validation.root = {config.root!r}: where are images "
                f"with masks to validate on? Give both, or train without: --set phase1.validation=null (and phase2.)"
            )
        self.config = config
        self.best_dir = run_dir / BEST
        self.images = get_benchmark(config.benchmark).open(Path(config.root), config.split)
        self.positions = spread_positions(len(self.images), config.num_images)

    def is_due(self, step: int, last_step: int) -> bool:
        """Whether the model is to be measured after this step."""
        return step % self.config.every == 0 or step == last_step

    def measure(self, model: OVSegmentor, step: int) -> float:
        """Return the model's mIoU; a model better than any before takes the place of `best/`.

        A step that is taken again after a kill gives the same figure, so `best/` stays what it would have been.
        """
        miou = validate(model, self.images, self.positions, self.config.protocol or Protocol())
        before = self.best()
        if before is None or miou > before["miou"]:
            with state.writing_folder(self.best_dir) as folder:
                model.save_pretrained(folder)
                (folder / RECORD).write_text(json.dumps({"step": step, "miou": miou, "split": self.config.split}))
        return miou

    def record(self) -> dict[str, Any]:
        """Return what was measured on, how, which model was kept, and the best figure on the way."""
        return {**asdict(self.config), "best": self.best()}

    def best(self) -> dict[str, float] | None:
        """Return step, mIoU and split of the best model; None before the first."""
        path = self.best_dir / RECORD
        return json.loads(path.read_text()) if path.exists() else None
