import json
import logging
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from training.config import TrainConfig
from training.metrics import MetricsWriter, drop_lines_after


def line(step: int) -> dict[str, object]:
    losses = {"contrastive": 1.5, "entity": None, "mask": None, "nouns": 0.25, "words": None, "total": 1.75}
    return {"step": step, "epoch": step / 6, "phase": 1, **losses, "lr": 1e-3}


def test_a_resumed_run_holds_each_step_once(tmp_path: Path, tiny_config: Callable[..., TrainConfig]) -> None:
    with MetricsWriter(tmp_path, 0, tiny_config()) as metrics:
        for step in range(1, 6):
            metrics.write(line(step))
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 6, "ep')  # cut short by a kill
    with MetricsWriter(tmp_path, 4, tiny_config()) as metrics:
        metrics.write(line(5))
        metrics.sync()
    lines = [json.loads(text) for text in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in lines] == [1, 2, 3, 4, 5]
    assert lines[-1] == line(5)


def test_dropping_lines_of_a_file_that_is_not_there_does_nothing(tmp_path: Path) -> None:
    drop_lines_after(tmp_path / "metrics.jsonl", 3)
    assert not list(tmp_path.iterdir())


def test_log_lines_tell_losses_rate_and_time_left(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tiny_config: Callable[..., TrainConfig]
) -> None:
    with caplog.at_level(logging.INFO), MetricsWriter(tmp_path, 0, tiny_config(steps=6, log_every=2)) as metrics:
        for step in range(1, 4):
            metrics.write(line(step))
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("phase 1  step 2/6  epoch 0.33  total 1.750  contrastive 1.500  nouns 0.250")
    assert "steps/s  eta 0:0" in caplog.messages[0]
    assert list(tmp_path.glob("events.out.tfevents.*"))


def test_memory_is_the_most_that_the_process_had() -> None:
    program = "import torch\nfrom training.metrics import peak_memory_mb\n"
    program += "print(peak_memory_mb(torch.device('cpu')))\nbytearray(b'x') * 400_000_000\n"
    program += "print(peak_memory_mb(torch.device('cpu')))"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    before, after = map(float, shown.split())
    assert 300 < after - before < 500
    assert 50 < before < 3000
