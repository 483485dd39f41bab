"""What `ovseg up` starts: real servers, a real worker, runs that are cancelled, and nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import yaml

from curation.check import check_images
from flows.deployments import PATH
from flows.services import STATE, Service, down, running

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import FlowRun

ROOT = PATH.parent
POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), None) or (
    Path(found).parent if (found := shutil.which("postgres")) else None
)
ASKED_FOR = {
    "ingest/stage": {"table": "captions.tsv", "data_dir": "data"},
    "parse/stage": {"data_dir": "data"},
    "download/stage": {"data_dir": "data"},
    "embed/stage": {"data_dir": "data", "model_dir": "model"},
    "pairs/stage": {"data_dir": "data"},
    "train/stage": {"data_dir": "data", "run_dir": "runs/mine"},
    "evaluate/stage": {"model_dirs": {"mine": "model"}, "benchmark": "voc", "root": "VOC2012", "out_dir": "evaluation"},
    "report/stage": {"run_dir": "runs/mine", "title": "Mine"},
}
"""what the forms of these deployments have no default for"""
PLACES = ("out", "out_dir", "data_dir", "run_dir", "root")
"""parameters that name folders"""


def test_a_process_that_only_has_the_number_of_a_service_is_left_alone(tmp_path: Path) -> None:
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        keeper = Service.of("keeper", bystander.pid)
        of_old = Service("keeper", bystander.pid, keeper.created - 100, "")
        assert keeper.process() is not None
        (tmp_path / STATE).write_text(json.dumps([asdict(of_old)]))
        assert running(tmp_path) == []
        assert down(tmp_path) == 0
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()


def test_nothing_runs_in_a_new_folder(tmp_path: Path) -> None:
    assert running(tmp_path) == []
    assert down(tmp_path) == 0


@contextmanager
def services(**environment: str) -> Iterator[Path]:
    """Yield the folder of services that `ovseg up` has started, and see that `ovseg down` leaves none of them."""
    home, ray_dir = (Path(tempfile.mkdtemp(prefix=f"ovseg-{name}-")) for name in ("home", "ray"))
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"PREFECT_HOME": str(home), "RAY_TMPDIR": str(ray_dir), **environment}.items():
            patch.setenv(name, value)
        patch.delenv("PREFECT_API_URL", raising=False)
        patch.delenv("RAY_ADDRESS", raising=False)
        try:
            said = ovseg("up")
            assert "token: " in said
            page = next(service.address for service in running(home) if service.name == "Prefect")
            patch.setenv("PREFECT_API_URL", f"{page}/api")
            yield home
        finally:
            started = below(running(home)[0].pid) if running(home) else set()
            ovseg("down")
            _, left = psutil.wait_procs(started, timeout=60)
            for folder in (home, ray_dir):
                shutil.rmtree(folder, ignore_errors=True)
        assert not left, f"`ovseg down` left {left}"


def ovseg(*arguments: str) -> str:
    command = [sys.executable, "-m", "flows.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def below(pid: int) -> set[psutil.Process]:
    process = psutil.Process(pid)
    return {process, *process.children(recursive=True)}


@pytest.fixture(scope="module")
def sqlite_home() -> Iterator[Path]:
    with services() as home:
        yield home


@pytest.fixture
def client(sqlite_home: Path) -> Iterator[SyncPrefectClient]:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    assert sqlite_home.exists()
    with temporary_settings({PREFECT_API_URL: os.environ["PREFECT_API_URL"]}), get_client(sync_client=True) as found:
        yield found


def debug_config(deployment: dict[str, Any], phase1_steps: int, slow_s: float) -> dict[str, Any]:
    """Return the debug demo's config at a port of its own, with slow images and a long phase 1."""
    config = json.loads(json.dumps(deployment))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        config["scenes"] |= {"port": probe.getsockname()[1], "slow_rate": 0.9, "slow_s": slow_s}
    config["phase1"]["steps"] = phase1_steps
    return config


def wait_for(what: Callable[[], Any], within_s: float = 900) -> Any:
    deadline = time.monotonic() + within_s
    while not (found := what()):
        assert time.monotonic() < deadline, "it did not come so far in time"
        time.sleep(0.5)
    return found


def has_ended(client: SyncPrefectClient, run: FlowRun) -> bool:
    state = client.read_flow_run(run.id).state
    return state is not None and state.is_final()


def final(client: SyncPrefectClient, run: FlowRun) -> Any:
    """Return the run's state once it is final."""

    def state() -> Any:
        found = client.read_flow_run(run.id).state
        return found if found is not None and found.is_final() else None

    return wait_for(state, 1500)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_second_up_says_what_runs(sqlite_home: Path) -> None:
    before = running(sqlite_home)
    said = ovseg("up")
    assert "running already" in said
    assert [service.name for service in before] == ["keeper", "Prefect", "Ray", "worker"]
    assert all(str(service.pid) in said for service in before)
    assert running(sqlite_home) == before


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_everything_that_is_up_listens_on_loopback_alone(sqlite_home: Path) -> None:
    listeners = {
        connection.laddr.ip.removeprefix("::ffff:")
        for process in below(running(sqlite_home)[0].pid)
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listeners
    assert listeners <= {"127.0.0.1", "::1"}


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_every_deployment_takes_its_parameters_and_refuses_wrong_ones(client: SyncPrefectClient) -> None:
    from prefect.exceptions import PrefectHTTPStatusError
    from prefect.states import Scheduled
    from prefect.types._datetime import now

    later = now("UTC").replace(year=now("UTC").year + 1)
    assert len(deployment_names()) > 30
    for name in deployment_names():
        found = client.read_deployment_by_name(name)
        asked_for = ASKED_FOR.get(name, {})
        state: Any = Scheduled(scheduled_time=later)
        run = client.create_flow_run_from_deployment(found.id, parameters=asked_for, state=state)
        assert run.state is not None
        assert run.state.is_scheduled()
        client.delete_flow_run(run.id)
        some = next(key for key in found.parameter_openapi_schema["properties"] if key != "init_from")
        with pytest.raises(PrefectHTTPStatusError, match=r"409|422"):
            client.create_flow_run_from_deployment(found.id, parameters={**asked_for, some: [[]]}, state=state)


def deployment_names() -> list[str]:
    deployments = yaml.safe_load(PATH.read_text())["deployments"]
    return [f"{entry['entrypoint'].rpartition(':')[2]}/{entry['name']}" for entry in deployments]


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_deployment_starts_with_its_parameters(client: SyncPrefectClient, tmp_path: Path) -> None:
    """Each is cancelled as soon as it runs, which its parameters' check comes before; most lack their data here."""
    from prefect.states import Cancelling

    for name in deployment_names():
        found = client.read_deployment_by_name(name)
        asked = found.parameter_openapi_schema["properties"]
        places = {key: str(tmp_path / name.replace("/", "-") / key) for key in PLACES if key in asked}
        run = client.create_flow_run_from_deployment(found.id, parameters=ASKED_FOR.get(name, {}) | places)
        wait_for(lambda run=run: client.read_flow_run(run.id).start_time or has_ended(client, run))
        client.set_flow_run_state(run.id, Cancelling())  # refused where it has ended
        state, ended = final(client, run), client.read_flow_run(run.id)
        assert ended.start_time is not None, f"{name}: {state.message}"
        assert "parameters" not in (state.message or ""), f"{name}: {state.message}"
        assert not state.is_crashed(), f"{name}: {state.message}"


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("name", "parameters", "why"),
    [
        ("parse/stage", {"data_dir": "nowhere"}, "nowhere"),
        ("evaluate/voc", {"root": "nowhere"}, "nowhere"),
        ("pipeline/photos", {}, "VOC2012"),
    ],
)
def test_a_failed_run_says_why_in_one_line(
    client: SyncPrefectClient, name: str, parameters: dict[str, Any], why: str
) -> None:
    run = client.create_flow_run_from_deployment(client.read_deployment_by_name(name).id, parameters=parameters)
    state = final(client, run)
    assert state.is_failed()
    assert why in state.message
    assert "\n" not in state.message.strip()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_cancelled_run_leaves_no_process_and_goes_on(client: SyncPrefectClient, sqlite_home: Path) -> None:
    deployment = client.read_deployment_by_name("pipeline/demo-debug")
    out = sqlite_home / "run"
    parameters = {
        "config": debug_config(deployment.parameters["config"], phase1_steps=200, slow_s=3.0),
        "out": str(out),
    }
    keeper = running(sqlite_home)[0].pid
    resting = below(keeper)

    for moment, undone in {
        "data/images/started.json": "data/images/manifest.json",
        "phase1/checkpoints/*": "phase1/model",
    }.items():
        run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
        wait_for(lambda moment=moment, run=run: any(out.glob(moment)) or has_ended(client, run))
        assert not has_ended(client, run)
        time.sleep(3)
        of_the_run = below(keeper) - resting
        assert of_the_run
        cancelled = [sys.executable, "-m", "prefect", "flow-run", "cancel", str(run.id)]
        assert subprocess.run(cancelled, check=False).returncode == 0
        state = final(client, run)
        assert state.is_cancelled(), state
        of_the_run |= below(keeper) - resting
        # Ray keeps workers that may serve the next run, and bookkeepers that end a while after their job.
        work = {process for process in of_the_run if is_work(process)}
        _, left = psutil.wait_procs(work, timeout=120)
        assert not left, f"the cancelled run left {left}"
        assert not (out / undone).exists()

    run = client.create_flow_run_from_deployment(deployment.id, parameters=parameters)
    state = final(client, run)
    assert state.is_completed(), state.message
    assert check_images(out / "data") > 0
    assert (out / "report/index.html").exists()
    keys = ["datacard-captions", "datacard-entities", "datacard-images", "datacard-pairs"]
    keys += ["entities", "pairs", "losses-phase1", "losses-phase2", "classes", "report"]
    shown = client.request("POST", "/artifacts/filter", json={"limit": 200}).json()
    assert {artifact["key"] for artifact in shown} >= set(keys)


def is_work(process: psutil.Process) -> bool:
    try:
        name = " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return False
    return any(word in name for word in ("prefect.engine", "curation.workers", "RayTrainWorker", "TrainController"))


@pytest.fixture
def postgresql() -> Iterator[str]:
    """Return the address of an empty database of a PostgreSQL of our own."""
    if POSTGRES is None:
        pytest.skip("NO POSTGRESQL: install it (Debian: apt-get install postgresql)")
    folder = Path(tempfile.mkdtemp(prefix="ovseg-postgresql-"))
    user = "postgres" if os.geteuid() == 0 else None  # it refuses to run as root
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    initdb = [POSTGRES / "initdb", "-D", folder / "data", "-A", "trust", "-U", "prefect", "-E", "UTF8"]
    subprocess.run(initdb, user=user, cwd="/", check=True, stdout=subprocess.DEVNULL)
    settings = ["-c", "listen_addresses=127.0.0.1", "-c", "unix_socket_directories="]
    server = subprocess.Popen(
        [POSTGRES / "postgres", "-D", folder / "data", "-p", str(port), *settings], user=user, cwd="/"
    )
    try:
        wait_for(lambda: is_open(port), 120)
        yield f"postgresql+asyncpg://prefect@127.0.0.1:{port}/postgres"
    finally:
        server.terminate()
        server.wait(60)
        shutil.rmtree(folder, ignore_errors=True)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_deployed_run_completes_on_postgresql(postgresql: str, tmp_path: Path) -> None:
    with services(PREFECT_API_DATABASE_CONNECTION_URL=postgresql) as home:
        entries = yaml.safe_load(PATH.read_text())["deployments"]
        recipe = next(entry for entry in entries if entry["name"] == "demo-debug")["parameters"]["config"]
        config, out = debug_config(recipe, phase1_steps=12, slow_s=0.1), tmp_path / "run"
        command = [sys.executable, "-m", "prefect", "deployment", "run", "pipeline/demo-debug", "--watch"]
        command += ["--param", f"config={json.dumps(config)}", "--param", f"out={out}"]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (out / "report/index.html").exists()
        assert not list(home.glob("*.db")), "SQLite was used beside PostgreSQL"
