"""What a run tells while it goes: metrics.jsonl, TensorBoard, log lines, a bar on a terminal."""

from __future__ import annotations

import json
import logging
import os
import re
import resource
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch.utils.tensorboard.writer import SummaryWriter
from tqdm import tqdm

from training.config import TrainConfig

logger = logging.getLogger(__name__)

METRICS = "metrics.jsonl"
LOSSES = ("total", "contrastive", "entity", "mask", "nouns", "words")


class MetricsWriter:
    """Writes one line per step. Opened at a step, it first removes the lines of later steps that a killed run left."""

    def __init__(self, run_dir: Path, done_steps: int, config: TrainConfig) -> None:
        drop_lines_after(run_dir / METRICS, done_steps)
        self._file = (run_dir / METRICS).open("a")
        self._board = SummaryWriter(str(run_dir), purge_step=done_steps + 1)
        self._bar = tqdm(
            total=config.steps, initial=done_steps, desc=f"phase {config.phase}", unit="step", disable=None
        )
        self._config = config
        self._clock = (time.monotonic(), done_steps)

    def __enter__(self) -> MetricsWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._file.close()
        self._board.close()
        self._bar.close()

    def write(self, line: dict[str, Any]) -> None:
        """Write the metrics of a step; `line["step"]` counts finished steps."""
        step = line["step"]
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        for name, value in line.items():
            if name != "step" and value is not None:
                self._board.add_scalar(f"train/{name}", value, step)
        self._bar.update()
        if step % self._config.log_every == 0 or step == self._config.steps:
            self._log(line)

    def sync(self) -> None:
        """Put all lines so far on the disk, as a checkpoint is about to count on them."""
        os.fsync(self._file.fileno())
        self._board.flush()

    def _log(self, line: dict[str, Any]) -> None:
        then, then_step = self._clock
        self._clock = (time.monotonic(), line["step"])
        rate = (line["step"] - then_step) / max(1e-9, self._clock[0] - then)
        left_s = round((self._config.steps - line["step"]) / max(1e-9, rate))
        losses = "  ".join(f"{name} {line[name]:.3f}" for name in LOSSES if line[name] is not None)
        logger.info(
            "phase %d  step %s/%s  epoch %.2f  %s  lr %.2e  %.1f steps/s  eta %d:%02d",
            line["phase"], f"{line['step']:,}", f"{self._config.steps:,}", line["epoch"], losses, line["lr"], rate,
            left_s // 60, left_s % 60,
        )  # fmt: skip


def peak_memory_mb(device: torch.device) -> float:
    """Return the most memory so far, in MB of 10^6 bytes: of the GPU by torch's tensors, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    if sys.platform == "darwin":
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    # On Linux `ru_maxrss` would begin at the size of the process that started this one.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) * 1024 / 1e6


def last_losses(run_dir: Path) -> dict[str, float]:
    """Return the losses of a run's last step."""
    line = json.loads((run_dir / METRICS).read_text().splitlines()[-1])
    return {name: line[name] for name in LOSSES if line[name] is not None}


def drop_lines_after(path: Path, step: int) -> None:
    """Cut a metrics file after the line of `step`; a line that was cut short by a kill goes too."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        kept = 0
        for line in file:
            if not line.endswith(b"\n") or json.loads(line)["step"] > step:
                break
            kept += len(line)
        file.truncate(kept)
