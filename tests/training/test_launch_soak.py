"""Half an hour of the debug recipe on Ray Train with the training worker killed every minute."""

from __future__ import annotations

import json
import os
import signal
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest
import ray

from flows.recipes_small import demo_debug
from tests.training.conftest import write_data
from training.launch import train

STEPS = int(os.environ.get("OVSEG_SOAK_STEPS", "3000"))
"""as many as two shared cores take about half an hour for, the killed ones included"""
BETWEEN_KILLS_S = 60.0


@dataclass
class Reading:
    """What is in use at a moment."""

    minute: float
    """since the start"""
    step: int
    """last finished step"""
    worker_mb: float
    """resident memory of the process that trains; 0 between two of them"""
    driver_mb: float
    """resident memory of the process that called `train`"""
    services_mb: float
    """resident memory of all that it started but the worker: Ray's servers and its idle processes"""
    processes: int
    """that it has started and that live"""
    files: int
    """that the driver has open"""
    disk_mb: float
    """size of the run's folder"""


class Soak:
    """Reads what is in use every five seconds and kills the worker every minute."""

    def __init__(self, run_dir: Path) -> None:
        self.run_dir, self.readings, self.kills = run_dir, list[Reading](), 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Soak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        begun = killed = time.monotonic()
        while not self._done.wait(5):
            now = time.monotonic()
            self.readings.append(self._read((now - begun) / 60))
            worker = self._worker()
            if worker is not None and now - killed >= BETWEEN_KILLS_S:
                worker.send_signal(signal.SIGKILL)
                self.kills, killed = self.kills + 1, now

    def _worker(self) -> psutil.Process | None:
        """Return the process that trains, by the lock that it holds on the run's folder."""
        lock = self.run_dir / ".lock"
        try:
            return psutil.Process(int(lock.read_text()))
        except (OSError, ValueError, psutil.NoSuchProcess):
            return None

    def _read(self, minute: float) -> Reading:
        worker, driver = self._worker(), psutil.Process()
        others = {process.pid: process for process in driver.children(recursive=True)}
        trains = worker is not None and others.pop(worker.pid, None) is not None
        return Reading(
            minute,
            _last_step(self.run_dir),
            _resident_mb(worker) if trains and worker is not None else 0.0,
            _resident_mb(driver),
            sum(map(_resident_mb, others.values())),
            len(others) + trains,
            driver.num_fds(),
            sum(path.stat().st_size for path in _files(self.run_dir)) / 1e6,
        )


def _resident_mb(process: psutil.Process) -> float:
    try:
        return process.memory_info().rss / 1e6
    except psutil.NoSuchProcess:
        return 0.0


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        yield from (path for name in names if (path := Path(parent, name)).exists())


def _last_step(run_dir: Path) -> int:
    path = run_dir / "metrics.jsonl"
    lines = [line for line in path.read_text().splitlines() if line.endswith("}")] if path.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


@pytest.mark.slow
@pytest.mark.timeout(3 * 3600)
def test_training_survives_a_kill_every_minute_and_leaks_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = demo_debug()
    config = replace(
        recipe.phase1,
        steps=STEPS,
        checkpoint_every=20,
        validation=None,
        augment=replace(recipe.phase1.augment, kind="crop"),
        launch=replace(recipe.phase1.launch, threads=1, max_failures=10_000),
    )
    data_dir, run_dir = write_data(tmp_path / "data", count=300), tmp_path / "run"
    ray.init(num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    try:
        with Soak(run_dir) as soak:
            train(data_dir, run_dir, recipe.model, config)
    finally:
        ray.shutdown()
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    with capsys.disabled():
        sys.stderr.write(f"\n{_table(soak, lines)}\n")
    minutes = soak.readings[-1].minute
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert soak.kills >= minutes / 3, "few kills"
    assert lines[-1]["total"] < 0.8 * lines[0]["total"], "it did not learn"
    assert len(list((run_dir / "checkpoints").iterdir())) == 2
    # Three quarters of the time lie between these quarters; the first few minutes fill caches.
    second, last = _quarter(soak.readings, 1), _quarter(soak.readings, 3)
    for name, allowed in (
        ("worker_mb", 1.1),
        ("driver_mb", 1.1),
        ("services_mb", 1.25),
        ("processes", 1.25),
        ("files", 1.1),
        ("disk_mb", 1.5),
    ):
        before, after = (max(getattr(reading, name) for reading in readings) for readings in (second, last))
        assert after <= allowed * before, f"{name} rose from {before:.0f} to {after:.0f}"


def _quarter(readings: list[Reading], number: int) -> list[Reading]:
    size = len(readings) // 4
    return readings[number * size : (number + 1) * size]


def _table(soak: Soak, lines: list[dict[str, float]]) -> str:
    names = ("minute", "step", "loss", "worker MB", "driver MB", "services MB", "processes", "files", "disk MB")
    rows = [f"{soak.kills} kills in {soak.readings[-1].minute:.1f} minutes, {len(lines)} steps", "", " | ".join(names)]
    for reading in soak.readings[:: max(1, len(soak.readings) // 12)]:
        losses = [line["total"] for line in lines if line["step"] <= reading.step][-20:]
        loss = f"{statistics.mean(losses):.2f}" if losses else ""
        in_use = (reading.worker_mb, reading.driver_mb, reading.services_mb, reading.processes, reading.files)
        cells = f"{reading.minute:.1f}", str(reading.step), loss, *(f"{value:.0f}" for value in in_use)
        rows.append(" | ".join((*cells, f"{reading.disk_mb:.1f}")))
    return "\n".join(rows)
