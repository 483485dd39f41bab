"""Stage: images/ and pairs/ to a model, one phase at a time, on Ray."""

from pathlib import Path

from prefect import flow

import training.launch
from flows.cluster import ray_cluster
from model import ModelConfig
from training.config import TrainConfig


@flow(name="train")
def train(
    data_dir: Path, run_dir: Path, model: ModelConfig, config: TrainConfig, init_from: Path | None = None
) -> Path:
    """Train one phase and return the folder of its model; phase 2 starts from phase 1's."""
    with ray_cluster():
        return training.launch.train(data_dir, run_dir, model, config, init_from)
