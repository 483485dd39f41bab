"""A training phase on Ray Train, which places workers and starts failed ones anew; the truth is on the run's disk."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import ray
import ray.train
from ray.train.torch import TorchConfig, TorchTrainer

from model import ModelConfig
from training.config import LaunchConfig, TrainConfig
from training.loop import train_here
from training.phase import Phase

logger = logging.getLogger(__name__)

WORKER_ENVIRONMENT = {
    # Threads that wait leave the core to the loader's thread and to other programs; spinning costs several times the
    # step's own time as soon as a core is not free.
    "OMP_WAIT_POLICY": "PASSIVE",
    # glibc keeps freed memory instead of handing it back and faulting it in again at each step: a tenth of its time.
    "MALLOC_MMAP_THRESHOLD_": str(1 << 30),
    "MALLOC_TRIM_THRESHOLD_": str(4 << 30),
    "MALLOC_TOP_PAD_": str(256 << 20),
    "TOKENIZERS_PARALLELISM": "false",
}
"""Must be set before a worker starts."""


def train(
    data_dir: Path, run_dir: Path, model: ModelConfig, config: TrainConfig, init_from: Path | None = None
) -> Path:
    """Train one phase on Ray and return the model's folder. Resumes by itself; a finished run returns at once.

    Uses the Ray that the caller has joined, else the one that RAY_ADDRESS names, else one of its own. The run's folder
    must be one that all workers share.

    Raises:
        ValueError: a folder begun with other settings, or fewer CPUs or GPUs than the workers need.
        RuntimeError: training failed more often than launch.max_failures; its last error is the cause.
    """
    init_from = None if init_from is None else init_from.resolve()
    phase = Phase(data_dir.resolve(), run_dir.resolve(), model, config, init_from)
    phase.begin()
    if phase.is_finished():
        logger.info("%s: finished before, %d steps", phase.run_dir, config.steps)
        return phase.model_dir
    if not ray.is_initialized():
        ray.init(address=None if "RAY_ADDRESS" in os.environ else "local")
    _check_resources(config.launch)
    # Ray gives workers a minute to start; a busy machine needs longer to import torch.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "300")
    trainer = TorchTrainer(
        _train_worker,
        train_loop_config={"phase": phase},
        torch_config=TorchConfig(backend="nccl" if config.launch.use_gpu else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=config.launch.workers,
            use_gpu=config.launch.use_gpu,
            resources_per_worker=_resources(config.launch),
        ),
        run_config=ray.train.RunConfig(  # type: ignore[call-arg] # mypy sees the class of the older API
            # A new name at each start: Ray must not restore a state of its own, our checkpoints are the truth.
            name=f"{phase.run_dir.name}-{time.strftime('%Y%m%dT%H%M%S')}-{time.time_ns() % 10**6:06d}",
            storage_path=str(phase.run_dir / ".ray"),
            failure_config=ray.train.FailureConfig(max_failures=config.launch.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=1),
            worker_runtime_env={"env_vars": WORKER_ENVIRONMENT},
            logging_config=ray.train.LoggingConfig(log_level="WARNING"),
        ),
    )
    try:
        trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise RuntimeError(f"{phase.run_dir}: training failed; {error}") from error
    if not phase.is_finished():
        raise RuntimeError(f"{phase.run_dir}: Ray Train ended without a finished run; its logs name the reason")
    return phase.model_dir


def _train_worker(loop_config: dict[str, Any]) -> None:
    # Only our own lines go to the driver. Ray tells each report at INFO by a logger that its LoggingConfig misses.
    logging.getLogger().setLevel(logging.WARNING)
    training_logger = logging.getLogger("training")
    training_logger.addHandler(logging.StreamHandler())
    training_logger.setLevel(logging.INFO)
    training_logger.propagate = False
    train_here(loop_config["phase"], _report)


def _report(line: dict[str, Any], checkpoint: Path) -> None:
    """Give metrics to Ray, and a pointer to our checkpoint, so that its bytes are not copied."""
    if ray.train.get_context().get_world_rank() != 0:
        ray.train.report(line)  # Ray wants a report from every worker
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "checkpoint.json").write_text(json.dumps({"path": str(checkpoint)}))
        ray.train.report(line, checkpoint=ray.train.Checkpoint.from_directory(folder))


def _resources(launch: LaunchConfig) -> dict[str, float]:
    return {"CPU": launch.threads, **({"GPU": 1} if launch.use_gpu else {})}


def _check_resources(launch: LaunchConfig) -> None:
    """Refuse what Ray would wait for without end."""
    there: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    for name, count in _resources(launch).items():
        if there.get(name, 0) < count * launch.workers:
            raise ValueError(
                f"launch.workers = {launch.workers} with {count} {name} each: the Ray cluster has "
                f"{there.get(name, 0):.0f} {name}; ask for fewer workers or launch.threads, or join a larger cluster"
            )
