"""What a run keeps on disk so that it can be killed at any time: lock, settings, checkpoints, the finished record.

A checkpoint is a folder that gets its name by one rename after all its bytes are on the disk. There are no generator
states in it: noise is seeded per (seed, step, rank), everything else per (seed, epoch, key).
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
CHECKPOINTS_KEPT = 2
LOCK_WAIT_S = 60.0
RUN = "run.json"
STARTED = "started.json"


@contextmanager
def run_lock(run_dir: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold the run's folder for this process alone; the operating system frees it however the process ends.

    Raises: RuntimeError when another process holds it for longer than `wait_s`, the time an orphaned worker of a
    killed run may take to notice.
    """
    run_dir.mkdir(parents=True, exist_ok=True)
    with (run_dir / ".lock").open("a+") as file:
        deadline = time.monotonic() + wait_s
        while not _locked(file.fileno()):
            file.seek(0)
            holder = file.read().strip()
            if time.monotonic() > deadline:
                raise RuntimeError(f"{run_dir}: process {holder} trains here; wait for its end or end it first")
            logger.info("%s: waiting for process %s, which trains here", run_dir, holder)
            time.sleep(min(2.0, wait_s / 10))
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        yield


def begin_run(run_dir: Path, settings: Mapping[str, Any]) -> None:
    """Record the run's settings, or find them equal to those of an earlier start.

    Raises: ValueError that names the settings that differ.
    """
    wanted = json.loads(json.dumps(settings))
    run_dir.mkdir(parents=True, exist_ok=True)
    path = run_dir / STARTED
    if not path.exists():
        write_json(path, wanted)
        return
    found = json.loads(path.read_text())
    if found != wanted:
        before, now = _leaves(found), _leaves(wanted)
        differ = [name for name in {**before, **now} if before.get(name) != now.get(name)]
        changes = ", ".join(f"{name} = {before.get(name)!r} (now {now.get(name)!r})" for name in differ)
        raise ValueError(f"{run_dir}: begun with {changes}; remove the folder to train anew, or choose another")


def save_checkpoint(run_dir: Path, step: int, content: Mapping[str, Any]) -> Path:
    """Write a checkpoint of the state after `step` steps; keep the last two. Return its folder."""
    checkpoint = run_dir / CHECKPOINTS / f"step-{step:08d}"
    with writing_folder(checkpoint) as folder:
        torch.save(dict(content), folder / "state.pt")
    for old in list_checkpoints(run_dir)[:-CHECKPOINTS_KEPT]:
        shutil.rmtree(old)
    return checkpoint


def list_checkpoints(run_dir: Path) -> list[Path]:
    """Return the folders of whole checkpoints, oldest first."""
    return sorted((run_dir / CHECKPOINTS).glob("step-*"))


def load_checkpoint(run_dir: Path, device: torch.device) -> dict[str, Any] | None:
    """Return the newest checkpoint's content, or None before the first."""
    folders = list_checkpoints(run_dir)
    if not folders:
        return None
    content: dict[str, Any] = torch.load(folders[-1] / "state.pt", map_location=device, weights_only=True)
    return content


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file that is there whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        json.dump(content, file, indent=2)
    sync(temporary)
    temporary.replace(path)
    sync(path.parent)


@contextmanager
def writing_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that takes the place of `folder`, all its bytes on the disk, when the block ends."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    yield temporary
    for path in (*temporary.rglob("*"), temporary):
        sync(path)
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
    sync(folder.parent)


def sync(path: Path) -> None:
    """Put a file's bytes, or a folder's entries, on the disk, so that they survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _locked(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _leaves(content: Any, prefix: str = "") -> dict[str, Any]:
    if isinstance(content, dict):
        return {k: v for name, child in content.items() for k, v in _leaves(child, f"{prefix}{name}.").items()}
    return {prefix.rstrip("."): content}
