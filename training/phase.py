"""A training phase: what goes in, where it comes out, and the settings that must not change under a begun run."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from curation.images import PARTNERS_FILE, Partners, Samples
from curation.schema import file_digest
from model import ModelConfig
from training import state
from training.config import TrainConfig
from training.record import run_settings

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Phase:
    """One phase of training on a data folder, of which only images/ and pairs/ are read."""

    data_dir: Path
    """data folder with images/ and, for phase 2, pairs/"""
    run_dir: Path
    """folder of the run: run.json, metrics, checkpoints, model/"""
    model: ModelConfig
    """the model"""
    config: TrainConfig
    """how it is trained"""
    init_from: Path | None = None
    """model folder that phase 2 starts from; None in phase 1"""

    def __post_init__(self) -> None:
        if self.config.phase == 1 and self.init_from is not None:
            raise ValueError(f"phase 1 starts from nothing: leave out init_from = {self.init_from}, or set phase = 2")
        if self.config.phase == 2 and self.init_from is None:
            raise ValueError("phase 2 starts from phase 1's model: give its folder as init_from")
        if self.config.compute.accumulate > 1 and self.model.image.stem_norm == "batch":
            raise ValueError(
                f"compute.accumulate = {self.config.compute.accumulate}: stem_norm = 'batch' normalises over the "
                f"images of a step, which would no longer be together; use stem_norm = 'none' or accumulate = 1"
            )
        if self.config.phase == 2 and self.model.loss.mask == 0:
            logger.warning("phase 2 with loss.mask = 0 trains no cross-image mask consistency")

    def samples(self) -> Samples:
        """Return the stored images."""
        return Samples(self.data_dir / "images")

    def partners(self, samples: Samples) -> Partners | None:
        """Return the partners of the stored images in phase 2."""
        return Partners(self.data_dir / "pairs", samples) if self.config.phase == 2 else None

    @property
    def model_dir(self) -> Path:
        """The folder of the trained model."""
        return self.run_dir / "model"

    def is_finished(self) -> bool:
        """Whether run.json, the last file of a run, is there."""
        return (self.run_dir / state.RUN).exists()

    def settings(self) -> dict[str, Any]:
        """Return what decides the weights: configs and digests of inputs."""
        inputs = {"samples": self.samples().digest}
        if self.init_from is not None:
            inputs["partners"] = file_digest(self.data_dir / "pairs" / PARTNERS_FILE)
            inputs["init_from"] = file_digest(self.init_from / "model.safetensors")
        return run_settings(self.model, self.config, inputs)

    def begin(self) -> None:
        """Record the settings in the run's folder, or find them equal to those of an earlier start.

        Raises: ValueError that names the settings that differ.
        """
        state.begin_run(self.run_dir, self.settings())
