"""Stage: images/ and pairs/ to a model, one phase at a time, on Ray."""

from pathlib import Path

from prefect import flow

import training.launch
from flows.artifacts import show_losses
from flows.cluster import ray_cluster
from flows.limits import DAY_S, GPU_TRAININGS, slot
from flows.places import Place, on_copies
from flows.retries import retried
from flows.settings import described
from model import ModelConfig
from training.config import TrainConfig


@flow(name="train", flow_run_name="{run_dir}", timeout_seconds=60 * DAY_S)
@described
@on_copies
def train(
    data_dir: Place, run_dir: Place, model: ModelConfig, config: TrainConfig, init_from: Place | None = None
) -> Path:
    """Train one phase and return the folder of its model; phase 2 starts from phase 1's."""
    with slot(GPU_TRAININGS, is_needed=config.launch.use_gpu), ray_cluster():
        model_dir = retried(training.launch.train)(data_dir, run_dir, model, config, init_from)
    show_losses(run_dir)
    return model_dir
