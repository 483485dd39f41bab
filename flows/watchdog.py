"""End what a run has started when the run itself is gone, however it went.

A run killed by SIGKILL cannot tidy up: Ray's agents and Prefect's local server would live on, hold their ports and the
SQLite file, and trouble the next try. A small process of its own session therefore notes the run's descendants twice a
second and waits at the end of a pipe whose other end only the run holds; when the pipe closes, it kills them.
"""

from __future__ import annotations

import os
import select
import subprocess
import sys

import psutil

_PERIOD_S = 0.5
_kept_open: list[int] = []


def start_watchdog() -> None:
    """Start this process's watchdog; a second call does nothing."""
    if _kept_open:
        return
    reading, writing = os.pipe()  # neither end is inherited by default, so only this process keeps `writing` open
    subprocess.Popen(
        [sys.executable, "-m", "flows.watchdog", str(os.getpid())],
        stdin=reading,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(reading)
    _kept_open.append(writing)


def watch(run: psutil.Process) -> None:
    """Return when the run has ended and nothing that it started is left."""
    descendants: set[psutil.Process] = set()
    while not select.select([sys.stdin], [], [], _PERIOD_S)[0]:
        descendants = {process for process in descendants if process.is_running()} | _below(run)
    # A dead parent's children are nobody's: look once more below each one that is known.
    for process in list(descendants):
        descendants |= _below(process)
    for process in descendants - {psutil.Process()}:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def _below(process: psutil.Process) -> set[psutil.Process]:
    try:
        return set(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return set()


if __name__ == "__main__":
    watch(psutil.Process(int(sys.argv[1])))
