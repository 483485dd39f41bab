"""The services that flows need: a Prefect server and a Ray cluster, started here unless the environment names them."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import ray

from flows.watchdog import start_watchdog

logger = logging.getLogger(__name__)


@contextmanager
def prefect_server(home: Path, start_limit_s: float = 120) -> Iterator[str]:
    """Yield the address of a Prefect server: the one that PREFECT_API_URL names, else a local one with its page.

    Prefect would start a temporary server by itself, but that one has no page to look at and outlives a killed run.
    The local one keeps its history in `home` (SQLite). It must be started before `prefect` is imported.
    """
    if "PREFECT_API_URL" in os.environ:
        yield os.environ["PREFECT_API_URL"].removesuffix("/api")
        return
    start_watchdog()
    home.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PREFECT_HOME", str(home))
    port = _free_port(4200)
    address = f"http://127.0.0.1:{port}"
    os.environ["PREFECT_API_URL"] = f"{address}/api"
    os.environ["PREFECT_UI_API_URL"] = f"{address}/api"
    log = home / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "prefect.server.api.server:create_app", f"--port={port}"],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_until_up(f"{address}/api/health", server, log, start_limit_s)
        yield address
    finally:
        del os.environ["PREFECT_API_URL"], os.environ["PREFECT_UI_API_URL"]
        server.terminate()
        server.wait()


@contextmanager
def ray_cluster() -> Iterator[None]:
    """Have a Ray cluster: the one already joined, else the one that RAY_ADDRESS names, else a local one."""
    if ray.is_initialized():
        yield
        return
    start_watchdog()
    local = "RAY_ADDRESS" not in os.environ
    # 300 MB of object store is plenty: images and weights travel by disk, not through Ray.
    options: dict[str, Any] = {"object_store_memory": 300_000_000} if local else {}
    context = _start_ray(options)
    if context.dashboard_url:
        logger.info("Ray dashboard http://%s (its token: `ray get-auth-token`)", context.dashboard_url)
    try:
        yield
    finally:
        ray.shutdown()


def _start_ray(options: dict[str, Any], tries: int = 3) -> Any:
    for left in reversed(range(tries)):
        try:
            return ray.init(configure_logging=False, **options)
        except Exception as error:  # Ray raises no narrower type when a busy machine keeps it waiting for 30 s
            if "timed out during startup" not in str(error) or not left:
                raise
            logger.warning("Ray did not start within its 30 s, %d more tries", left)
            ray.shutdown()
    raise AssertionError("the last try returns or raises")


def _free_port(wanted: int) -> int:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", wanted))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_up(health: str, server: subprocess.Popen[bytes], log: Path, limit_s: float) -> None:
    deadline = time.monotonic() + limit_s
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urlopen(health, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError(f"Prefect's server did not answer at {health} within {limit_s:.0f} s; its log is {log}")
