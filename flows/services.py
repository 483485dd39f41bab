"""Prefect's server and worker and a Ray head on this machine, kept by one process: `ovseg up` and `ovseg down`.

The keeper (this module as a program) starts the services, writes services.json when all of them answer, and ends them
in the reverse order when it is told to. A watchdog ends what is left of them should the keeper itself be killed.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from curation.manifest import replacing
from flows.cluster import END_LIMIT_S, RAY, local_prefect_server, program, ray_head
from flows.watchdog import start_watchdog

ROOT = Path(__file__).resolve().parents[1]
STATE = "services.json"
LOGS = "services"
POOL = "local"
START_LIMIT_S = 1200.0
"""seconds for all of it: some 40 deployments take a while on a busy machine"""


@dataclass(frozen=True)
class Service:
    """A process that `up` has started."""

    name: str
    """what it is"""
    pid: int
    """number of the process"""
    created: float
    """seconds since 1970 when it started, which tells it from a later process with the same number"""
    address: str
    """where it answers; empty for one that only asks"""

    @classmethod
    def of(cls, name: str, pid: int, address: str = "") -> Service:
        """Return the service that a living process is."""
        return cls(name, pid, psutil.Process(pid).create_time(), address)

    def process(self) -> psutil.Process | None:
        """Return the process while it lives, never another one with its number."""
        try:
            process = psutil.Process(self.pid)
            is_it = process.create_time() == self.created and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return None
        return process if is_it else None


def running(home: Path) -> list[Service]:
    """Return the keeper and its services if the keeper lives, else none; services may have ended by themselves."""
    path = home / STATE
    services = [Service(**entry) for entry in json.loads(path.read_text())] if path.exists() else []
    return services if services and services[0].process() else []


def up(home: Path) -> list[Service]:
    """Start the keeper unless it runs, and return it with its services once they answer.

    Raises: ChildProcessError when they do not come up; it names the log.
    """
    if found := running(home):
        return found
    logs = home / LOGS
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "keeper.log").open("w") as log:
        keeper = subprocess.Popen(
            [sys.executable, "-m", "flows.services", str(home)],
            cwd=ROOT,
            env=_environment(home),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + START_LIMIT_S
    with ExitStack() as unless_up:
        unless_up.callback(keeper.wait)
        unless_up.callback(keeper.terminate)
        while time.monotonic() < deadline and keeper.poll() is None:
            if found := running(home):
                unless_up.pop_all()
                return found
            time.sleep(0.2)
    last = (logs / "keeper.log").read_text().strip().rpartition("\n")[2]
    raise ChildProcessError(f"the services did not start: {last}; their logs are in {logs}")


def down(home: Path) -> int:
    """End the keeper and everything that it has started, and nothing else; return how many processes that were."""
    keeper = next((service.process() for service in running(home)), None)
    if keeper is None:
        return 0
    processes = [keeper, *keeper.children(recursive=True)]
    keeper.terminate()
    _, left = psutil.wait_procs(processes, timeout=3 * END_LIMIT_S)
    for process in left:
        process.kill()
    psutil.wait_procs(left)
    return len(processes)


def describe(services: list[Service]) -> str:
    """Return where the services are and how to use them, as text for a terminal."""
    lines = [
        f"{service.name:8}{'' if service.process() else 'HAS ENDED, was '}process {service.pid}  {service.address}"
        for service in services
    ]
    prefect, ray = (next(each.address for each in services if each.name == name) for name in ("Prefect", "Ray"))
    token = subprocess.run([sys.executable, *RAY, "get-auth-token"], capture_output=True, text=True, check=True)
    return "\n".join(
        [
            *lines,
            f"\nPrefect's pages: {prefect}",
            f"Ray's dashboard: {ray}   token: {token.stdout.strip()}",
            f"\nexport PREFECT_API_URL={prefect}/api    # then: prefect deployment run 'pipeline/demo' --watch",
        ]
    )


def keep(home: Path) -> None:
    """Start the services, say in services.json where they are, and end them when this process gets SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # which leaves the contexts below in order
    logs = home / LOGS
    with (home / "services.lock").open("w") as lock, ExitStack() as stack:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            sys.exit("another `ovseg up` is at it")
        start_watchdog()
        server, page = stack.enter_context(local_prefect_server(home))
        head, dashboard = stack.enter_context(ray_head(logs / "ray.log"))
        _prefect("work-pool", "create", POOL, "--type", "process", "--overwrite")
        _set_limits()
        _prefect("--no-prompt", "deploy", "--all")
        worker = stack.enter_context(program(["-m", "prefect", "worker", "start", "--pool", POOL], logs / "worker.log"))
        services = [
            Service.of("keeper", os.getpid()),
            Service.of("Prefect", server.pid, page),
            Service.of("Ray", head.pid, dashboard),
            Service.of("worker", worker.pid),
        ]
        with replacing(home / STATE) as path:
            path.write_text(json.dumps([asdict(service) for service in services], indent=2))
        stack.callback((home / STATE).unlink)
        signal.pause()


def _environment(home: Path) -> dict[str, str]:
    # Servers that the caller's shell names are not ours to use; Ray stays on loopback, behind its token.
    kept = {name: value for name, value in os.environ.items() if name not in ("PREFECT_API_URL", "RAY_ADDRESS")}
    loopback = {"RAY_AUTH_MODE": "token", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}
    # Prefect's deploy takes the folder that flows run in from here.
    return {**kept, **loopback, "PREFECT_HOME": str(home), "PWD": str(ROOT)}


def _prefect(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "prefect", *arguments], check=True)


def _set_limits() -> None:
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate, GlobalConcurrencyLimitUpdate
    from prefect.exceptions import ObjectNotFound

    from flows.limits import LIMITS

    with get_client(sync_client=True) as client:
        for name, slots in LIMITS.items():
            try:
                # Nobody holds a slot now; one that a killed run held would be held for good.
                client.update_global_concurrency_limit(name, GlobalConcurrencyLimitUpdate(active_slots=0))
            except ObjectNotFound:
                client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name=name, limit=slots))


if __name__ == "__main__":
    keep(Path(sys.argv[1]))
