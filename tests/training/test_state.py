import os
import time
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
import torch

from training import state


def test_the_newest_checkpoint_is_read_and_the_last_two_are_kept(tmp_path: Path) -> None:
    assert state.load_checkpoint(tmp_path, torch.device("cpu")) is None
    for step in (2, 4, 10):
        state.save_checkpoint(tmp_path, step, {"step": step, "weight": torch.full((2,), float(step))})
    assert [folder.name for folder in state.list_checkpoints(tmp_path)] == ["step-00000004", "step-00000010"]
    checkpoint = state.load_checkpoint(tmp_path, torch.device("cpu"))
    assert checkpoint is not None
    assert checkpoint["step"] == 10
    assert checkpoint["weight"].tolist() == [10, 10]


def test_a_checkpoint_that_was_being_written_does_not_count(tmp_path: Path) -> None:
    state.save_checkpoint(tmp_path, 2, {"step": 2})
    cut_short = tmp_path / "checkpoints" / ".step-00000004.tmp"
    cut_short.mkdir()
    (cut_short / "state.pt").write_bytes(b"half")
    checkpoint = state.load_checkpoint(tmp_path, torch.device("cpu"))
    assert checkpoint is not None
    assert checkpoint["step"] == 2
    state.save_checkpoint(tmp_path, 4, {"step": 4})
    assert not cut_short.exists()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    state.begin_run(tmp_path / "run", {"train": {"seed": 0, "betas": (0.9, 0.99)}})
    state.begin_run(tmp_path / "run", {"train": {"seed": 0, "betas": [0.9, 0.99]}})
    with pytest.raises(ValueError, match=r"begun with train.seed = 0 \(now 1\); remove the folder to train anew"):
        state.begin_run(tmp_path / "run", {"train": {"seed": 1, "betas": (0.9, 0.99)}})


def test_a_second_process_is_refused_until_the_first_ends(tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
    code = "import time; from training.state import run_lock\nwith run_lock(folder): held.touch(); time.sleep(999)"
    holder = start(code, folder=tmp_path, held=tmp_path / "held")
    while not (tmp_path / "held").exists():
        assert holder.is_alive()
        time.sleep(0.05)
    with pytest.raises(RuntimeError, match=f"process {holder.pid} trains here"), state.run_lock(tmp_path, wait_s=0.1):
        pass
    holder.kill()
    with state.run_lock(tmp_path, wait_s=10):
        assert (tmp_path / ".lock").read_text().strip() == str(os.getpid())
