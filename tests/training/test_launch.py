import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import ray

from model import ModelConfig
from training.config import LaunchConfig, TrainConfig
from training.launch import train
from training.loop import train_here
from training.phase import Phase

Make = Callable[..., TrainConfig]


@pytest.fixture
def cluster() -> Iterator[None]:
    """Have a Ray of two CPUs."""
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    yield
    ray.shutdown()


def kill_worker_after(run_dir: Path, checkpoint: str) -> None:
    """Kill the process that trains in the run's folder as soon as a checkpoint is there."""
    while not (run_dir / "checkpoints" / checkpoint).exists():
        time.sleep(0.01)
    os.kill(int((run_dir / ".lock").read_text()), signal.SIGKILL)


@pytest.mark.usefixtures("cluster")
def test_ray_train_survives_the_death_of_a_worker_and_ends_bit_equal(
    data_dir: Path, tmp_path: Path, tiny_model: ModelConfig, tiny_config: Make
) -> None:
    config = tiny_config(steps=30, checkpoint_every=10)
    killer = threading.Thread(target=kill_worker_after, args=(tmp_path / "ray", "step-00000010"))
    killer.start()
    model_dir = train(data_dir, tmp_path / "ray", tiny_model, config)
    killer.join()
    here = train_here(Phase(data_dir, tmp_path / "here", tiny_model, config))
    assert model_dir == tmp_path / "ray" / "model"
    assert (model_dir / "model.safetensors").read_bytes() == (here / "model.safetensors").read_bytes()
    lines = (tmp_path / "ray" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 31))
    pointers = [json.loads(path.read_text()) for path in (tmp_path / "ray" / ".ray").rglob("checkpoint.json")]
    assert max(Path(pointer["path"]).name for pointer in pointers) == "step-00000030"
    # A finished run needs no workers: more CPUs than there are would be refused.
    assert train(data_dir, tmp_path / "ray", tiny_model, config) == model_dir
    many = replace(config, batch_size=9, launch=LaunchConfig(workers=3, threads=1))
    with pytest.raises(ValueError, match=r"launch.workers = 3 with 1 CPU each: the Ray cluster has 2 CPU"):
        train(data_dir, tmp_path / "many", tiny_model, many)
