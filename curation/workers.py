"""Processes that work through tasks in turn, each ended with all it started: at a deadline, an error, our end.

A worker is a fresh interpreter that leads a process group. It gets tasks and returns results over one pipe; a second
one, its standard input, stays open as long as we live: when we are killed it closes, and the worker ends its group.
A task that fails ends its worker; the error is in the worker's log.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import TracebackType
from typing import Any

logger = logging.getLogger(__name__)

_ROOT = Path(__file__).resolve().parent.parent
_END_S = 10.0


@dataclass
class _Running:
    task: Any
    attempt: int
    deadline: float


class Workers:
    """Worker processes that run `module.function(task)` for tasks and results that can be pickled.

    Raises: ChildProcessError from `run` when a task failed, ended its worker or passed its deadline in every attempt.
    """

    def __init__(self, target: str, processes: int, deadline_s: float, log_dir: Path, attempts: int = 2) -> None:
        self.target = target
        self.processes = processes
        self.deadline_s = deadline_s
        self.log_dir = log_dir
        self.attempts = attempts
        self._idle: list[_Worker] = []
        self._busy: dict[_Worker, _Running] = {}

    def run(self, tasks: Iterable[Any]) -> Generator[Any, None, None]:
        """Yield the results in the order in which tasks end. Tasks are drawn when a worker is free."""
        again: deque[tuple[Any, int]] = deque()
        fresh = ((task, 1) for task in tasks)
        while True:
            while len(self._busy) < self.processes and (following := self._next(again, fresh)):
                self._start(*following)
            if not self._busy:
                return
            nearest = min(running.deadline for running in self._busy.values())
            wait([worker.connection for worker in self._busy], max(0.0, nearest - time.monotonic()))
            for worker, running in list(self._busy.items()):
                if worker.connection.poll():
                    try:
                        result = worker.connection.recv()
                    except (EOFError, OSError):
                        self._give_up(worker, running, "ended without a result", again)
                        continue
                    del self._busy[worker]
                    self._idle.append(worker)
                    yield result
                elif time.monotonic() > running.deadline:
                    self._give_up(worker, running, f"was not done within {self.deadline_s:g} s", again)

    def __enter__(self) -> Workers:
        """Start nothing yet: a worker starts with its first task."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End all workers and everything they started."""
        for worker in [*self._idle, *self._busy]:
            worker.end()

    @staticmethod
    def _next(again: deque[tuple[Any, int]], fresh: Iterator[tuple[Any, int]]) -> tuple[Any, int] | None:
        return again.popleft() if again else next(fresh, None)

    def _start(self, task: Any, attempt: int) -> None:
        worker = self._idle.pop() if self._idle else _Worker(self.target, self.log_dir)
        worker.connection.send(task)
        self._busy[worker] = _Running(task, attempt, time.monotonic() + self.deadline_s)

    def _give_up(self, worker: _Worker, running: _Running, what: str, again: deque[tuple[Any, int]]) -> None:
        worker.end()
        del self._busy[worker]
        message = f"{running.task} {what}; the end of the worker's log: {worker.last_words()}"
        if running.attempt == self.attempts:
            raise ChildProcessError(
                f"{message} (attempt {running.attempt} of {self.attempts}; the same command tries again)"
            )
        logger.warning("%s; trying again", message)
        again.append((running.task, running.attempt + 1))


class _Worker:
    """One process, its pipe and its log."""

    def __init__(self, target: str, log_dir: Path) -> None:
        self.connection, theirs = Pipe()
        path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH")]))
        log_dir.mkdir(parents=True, exist_ok=True)
        self.log = log_dir / f"worker-{time.time_ns()}.log"
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                # -P keeps the working directory out of the import path.
                [sys.executable, "-P", "-c", f"from {__name__} import serve; serve()", target, str(theirs.fileno())],
                env={**os.environ, "PYTHONPATH": path},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        theirs.close()

    def end(self) -> None:
        """Kill the process group and wait for its leader."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_END_S)
        self.connection.close()
        if self._process.stdin:
            self._process.stdin.close()

    def last_words(self) -> str:
        """Return the last line that the worker wrote to its log."""
        lines = self.log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "(empty)")


def serve() -> None:
    """Run tasks until there are no more: the life of a worker process (arguments: module.function, descriptor)."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    target, descriptor = sys.argv[1:]
    connection: Connection[Any, Any] = Connection(int(descriptor))
    function = _load(target)
    with contextlib.suppress(EOFError):
        while True:
            connection.send(function(connection.recv()))


def _load(target: str) -> Callable[[Any], Any]:
    from importlib import import_module

    module, _, name = target.rpartition(".")
    function: Callable[[Any], Any] = getattr(import_module(module), name)
    return function


def _end_with_parent() -> None:
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)
