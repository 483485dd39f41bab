"""The services that flows need: a Prefect server and a Ray cluster, started here unless the environment names them."""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import ray

from flows.watchdog import start_watchdog

logger = logging.getLogger(__name__)
Program = subprocess.Popen[bytes]
RAY = ("-m", "ray.scripts.scripts")
"""Ray's command line, as arguments of Python"""

START_LIMIT_S = 300.0
"""seconds that a server may take until it answers"""
END_LIMIT_S = 60.0
"""seconds that a program may take to end before it is killed"""
START_TRIES = 3
"""times that Ray is started, which gives up after 30 s on a busy machine"""
OBJECT_STORE_BYTES = 300_000_000
"""plenty: images and weights travel by disk, not through Ray"""


@contextmanager
def prefect_server(home: Path) -> Iterator[str]:
    """Yield the address of a Prefect server: the one that PREFECT_API_URL names, else a local one with its page.

    Prefect would start a temporary server by itself, but that one has no page to look at and outlives a killed run.
    It must be started before `prefect` is imported.
    """
    if "PREFECT_API_URL" in os.environ:
        yield os.environ["PREFECT_API_URL"].removesuffix("/api")
        return
    start_watchdog()
    with local_prefect_server(home) as (_, address):
        yield address


@contextmanager
def local_prefect_server(home: Path) -> Iterator[tuple[Program, str]]:
    """Yield a Prefect server on this machine and its address, which this process then uses.

    Its history is in `home` (SQLite), unless PREFECT_API_DATABASE_CONNECTION_URL names a PostgreSQL.
    """
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home))
    port = free_port(4200)
    address = f"http://127.0.0.1:{port}"
    log = home / "server.log"
    command = ["-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", f"--port={port}"]
    addresses = _environment(PREFECT_API_URL=f"{address}/api", PREFECT_UI_API_URL=f"{address}/api")
    with addresses, program(command, log) as server:
        wait_until_up(f"{address}/api/health", server, log)
        yield server, address


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Have a Ray cluster: the one already joined, else the one that RAY_ADDRESS names, else a local one."""
    if ray.is_initialized():
        yield
        return
    start_watchdog()
    # "local", since Ray would join a cluster that happens to run on this machine, say that of `ovseg up`.
    local: dict[str, Any] = {"address": "local", "object_store_memory": OBJECT_STORE_BYTES}
    options = {} if "RAY_ADDRESS" in os.environ else local
    context = _start_ray(options)
    if context.dashboard_url:
        logger.info("Ray dashboard http://%s (its token: `ray get-auth-token`)", context.dashboard_url)
    try:
        yield
    finally:
        ray.shutdown()


def _start_ray(options: dict[str, Any]) -> Any:
    for left in reversed(range(START_TRIES)):
        try:
            with _kept_signal(signal.SIGTERM):
                return ray.init(configure_logging=False, **options)
        except SystemExit:
            signal.raise_signal(signal.SIGTERM)  # Ray's handler got it; now it goes to whom it was meant for
            raise
        except Exception as error:  # Ray raises no narrower type when a busy machine keeps it waiting for 30 s
            if "timed out during startup" not in str(error) or not left:
                raise
            logger.warning("Ray did not start within its 30 s, %d more tries", left)
            ray.shutdown()
    raise AssertionError("the last try returns or raises")


@contextmanager
def _kept_signal(number: signal.Signals) -> Iterator[None]:
    # Ray puts a handler of its own in place of Prefect's, by which a run learns that it is cancelled.
    handler = signal.getsignal(number)
    try:
        yield
    finally:
        if callable(handler) and threading.current_thread() is threading.main_thread():
            signal.signal(number, handler)


@contextmanager
def ray_head(log: Path) -> Iterator[tuple[Program, str]]:
    """Yield a Ray head on loopback and its dashboard's address; RAY_ADDRESS then names it."""
    with ExitStack() as stack:
        for left in reversed(range(START_TRIES)):
            port, dashboard = free_port(6379), free_port(8265)
            place = ["--node-ip-address=127.0.0.1", f"--port={port}", f"--dashboard-port={dashboard}"]
            further = [f"--ray-client-server-port={free_port(10001)}", f"--object-store-memory={OBJECT_STORE_BYTES}"]
            head = stack.enter_context(program([*RAY, "start", "--head", "--block", *place, *further], log))
            if _has_started(head, log):
                break
            if not left:
                raise RuntimeError(f"Ray's head did not start in {START_TRIES} tries; the log is {log}")
            logger.warning("Ray did not start, %d more tries", left)
        stack.enter_context(_environment(RAY_ADDRESS=f"127.0.0.1:{port}"))
        yield head, f"http://127.0.0.1:{dashboard}"


def _has_started(head: Program, log: Path) -> bool:
    # Its dashboard answers before its node is there.
    while head.poll() is None:
        if "Ray runtime started" in log.read_text(errors="replace"):
            return True
        time.sleep(0.2)
    return False


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    os.environ.update(values)
    try:
        yield
    finally:
        for name in values:
            del os.environ[name]


@contextmanager
def program(arguments: list[str], log: Path) -> Iterator[Program]:
    """Yield a Python program that runs for as long as the context lasts; its output goes to a file."""
    with log.open("w") as output:
        running = subprocess.Popen([sys.executable, *arguments], stdout=output, stderr=subprocess.STDOUT)
    try:
        yield running
    finally:
        running.terminate()
        try:
            running.wait(END_LIMIT_S)
        except subprocess.TimeoutExpired:
            running.kill()
            running.wait()


def free_port(wanted: int) -> int:
    """Return the wanted port of 127.0.0.1 if nobody listens there, else one that the kernel chooses."""
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_up(health: str, server: Program, log: Path) -> None:
    """Return once the server answers.

    Raises: RuntimeError that names its log when it ends, or says nothing for START_LIMIT_S.
    """
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(health, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"nothing answered at {health} within {START_LIMIT_S:.0f} s; the log is {log}")
