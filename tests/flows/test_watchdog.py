"""A run that is killed leaves nothing behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

RUN = """
import subprocess, sys, time
from flows.watchdog import start_watchdog
start_watchdog()
start_watchdog()
child = subprocess.Popen([sys.executable, "-c", '''
import subprocess, sys, time
grandchild = subprocess.Popen(["sleep", "600"], start_new_session=True)
print(grandchild.pid, flush=True)
time.sleep(600)
'''], start_new_session=True)
print(child.pid, flush=True)
time.sleep(float(sys.argv[1]))
"""


def _start(seconds: float) -> tuple[subprocess.Popen[str], list[int]]:
    run = subprocess.Popen(
        [sys.executable, "-c", RUN, str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert run.stdout is not None
    return run, [int(run.stdout.readline()) for _ in range(2)]


def _gone(pids: list[int], within_s: float = 10) -> bool:
    def alive(pid: int) -> bool:
        return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE

    deadline = time.monotonic() + within_s
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not any(map(alive, pids))


def test_children_and_grandchildren_of_a_killed_run_end() -> None:
    run, pids = _start(600)
    time.sleep(1.5)  # the watchdog looks twice a second
    assert all(map(psutil.pid_exists, pids))
    run.send_signal(signal.SIGKILL)
    run.wait()
    assert _gone(pids)


def test_what_a_finished_run_forgot_ends_too() -> None:
    run, pids = _start(2)
    run.wait()
    assert run.returncode == 0
    assert _gone(pids)
