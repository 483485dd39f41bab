"""One of the two nodes of a Ray cluster dies in the middle of a stage; the other one ends it with the same results.

The nodes are started by `ray start`, on loopback and behind a token, and the commands are those of the command line.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from curation.captions import IngestConfig, ingest
from curation.download import DownloadConfig, download
from curation.images import Samples
from curation.manifest import read_manifest
from curation.pairs import PairsConfig, build_pairs
from curation.parse import parse
from curation.scenes_server import serve_folder
from flows.cluster import free_port

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).resolve().parents[2]
NUM_IMAGES = 160
CAPTIONS_PER_IMAGE = 60
ENTITIES = ("cat", "dog", "boat", "car")

START = """
from ray._private import services, utils
from ray.scripts.scripts import main

services.get_node_ip_address = lambda *_: "127.0.0.1"
utils.get_dashboard_dependency_error = lambda: ImportError("left out")
main()
"""
"""`ray start`; a second node would take the machine's own address in place of 127.0.0.1. The agents of the dashboard
must be up within 15 s, too short for a busy machine: they are left out, as where Ray is installed without them."""

TRIES = 5
"""starts of a node, whose other processes must be up within 30 s"""

PATIENCE = {"RAY_agent_register_timeout_ms": "300000", "RAY_worker_register_timeout_seconds": "300"}
"""for a busy machine, too"""

HOLD = """
import flows, ray, sys
ray.init()
room = ray.util.placement_group([{"CPU": int(sys.argv[1]), "node:__internal_head__": 0.001}])
ray.get(room.ready())
print("held", flush=True)
sys.stdin.read()
"""
"""takes CPUs of the first node, so that work goes to the second, until its input ends"""


@dataclass
class Cluster:
    """The first node, on which commands run, and the means to have a second one."""

    folder: Path
    """for what Ray writes; a short path, since sockets lie in it"""
    environment: dict[str, str]
    """with the cluster's address and token"""

    def command(self, folder: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """Start `ovseg ARGUMENTS` in a folder; its output goes to log.txt there."""
        with (folder / "log.txt").open("ab") as log:
            command = [sys.executable, "-m", "flows.cli", *arguments]
            return subprocess.Popen(command, cwd=folder, env=self.environment, stdout=log, stderr=subprocess.STDOUT)

    @contextmanager
    def second_node(self) -> Iterator[psutil.Process]:
        """Yield another node of one CPU."""
        address = self.environment["RAY_ADDRESS"]
        with node(self.folder / "b", self.environment, f"--address={address}", "--num-cpus=1") as process:
            yield process

    @contextmanager
    def held(self, num_cpus: int) -> Iterator[None]:
        """Keep CPUs of the first node from everybody else."""
        holder = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(num_cpus)],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            yield
        finally:
            holder.communicate()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("RAY_", "PREFECT_"))} | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "PYTHONPATH": str(ROOT),
    }
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as name, ExitStack() as stack:
        folder = Path(name)
        head = {**environment, "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}  # keeps it on loopback
        place = ("--head", "--node-ip-address=127.0.0.1", "--port=0", f"--ray-client-server-port={free_port(0)}")
        options = (*place, "--include-dashboard=false", "--num-cpus=2")
        stack.enter_context(node(folder / "a", head, *options))
        address = (folder / "a" / "ray_current_cluster").read_text()
        yield Cluster(folder, {**environment, "RAY_ADDRESS": address})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images that no two of are alike."""
    folder = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((64, 64)).save(folder / f"{number}.jpg")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """Return a data folder made by this process alone."""
    folder = tmp_path_factory.mktemp("undisturbed")
    rows = [
        f"{number}.jpg\tthe {ENTITIES[number % 4]} that we saw on day {day} near a train"
        for number in range(NUM_IMAGES)
        for day in range(CAPTIONS_PER_IMAGE)
    ]
    (folder / "captions.tsv").write_text("\n".join(["image\tcaption", *rows]) + "\n")
    data_dir = folder / "data"
    ingest(str(folder / "captions.tsv"), data_dir, IngestConfig(part_rows=400))
    parse(data_dir)
    with serve_folder(pictures, 0) as address:
        download(data_dir, DownloadConfig(allow_private=True, shard_size=20), address)
    build_pairs(data_dir, PairsConfig())
    return data_dir


def test_a_parse_ends_with_the_same_rows_when_a_node_dies(cluster: Cluster, undisturbed: Path, tmp_path: Path) -> None:
    copy(undisturbed, tmp_path / "data", "captions")
    parts = tmp_path / "data" / "entities"
    with cluster.second_node() as second, cluster.held(2):
        command = cluster.command(tmp_path, "parse", "data")
        wait_for(lambda: any(parts.glob("part-*.json")) and works_on(second, "parse_part"), command)
        kill(second)
        assert len(list(parts.glob("part-*.json"))) < len(read_manifest(undisturbed / "entities").parts)
    finish(command, tmp_path)
    for stage in ("entities", "postings"):
        assert read_manifest(tmp_path / "data" / stage).parts == read_manifest(undisturbed / stage).parts
    assert {path.name for path in parts.iterdir()} == {path.name for path in (undisturbed / "entities").iterdir()}


def test_a_download_ends_with_the_same_images_when_a_node_dies(
    cluster: Cluster, undisturbed: Path, pictures: Path, tmp_path: Path
) -> None:
    copy(undisturbed, tmp_path / "data", "captions", "entities", "postings")
    shards = tmp_path / "data" / "images"
    with serve_folder(pictures, 0) as address:
        settings = ("--set", "allow_private=true", "--set", "shard_size=20")
        with cluster.second_node() as second, cluster.held(2):
            command = cluster.command(tmp_path, "download", "data", "--ray", "--image-root", address, *settings)
            wait_for(lambda: any(shards.glob("*.tar.json")) and works_on(second, "download_shard"), command)
            kill(second)
            assert len(list(shards.glob("*.tar.json"))) < NUM_IMAGES / 20
        finish(command, tmp_path)
    assert images(tmp_path / "data") == images(undisturbed)
    assert {path.name for path in shards.iterdir()} == {path.name for path in (undisturbed / "images").iterdir()}


def test_training_ends_with_the_same_weights_when_the_node_of_a_worker_dies(
    cluster: Cluster, undisturbed: Path, tmp_path: Path
) -> None:
    copy(undisturbed, tmp_path / "data", "images", "pairs")
    settings = {"phase2": "null", "phase1.steps": 40, "phase1.checkpoint_every": 5, "phase1.batch_size": 16}
    settings |= {"phase1.launch.workers": 2, "phase1.launch.threads": 1}
    arguments = ["train", "demo-debug", "--data", "data"]
    for name, value in settings.items():
        arguments += ["--set", f"{name}={value}"]
    finish(cluster.command(tmp_path, *arguments, "--out", "alone"), tmp_path)
    checkpoints = tmp_path / "disturbed" / "phase1" / "checkpoints"
    with cluster.second_node() as second, cluster.held(1):  # so that each node has one worker
        command = cluster.command(tmp_path, *arguments, "--out", "disturbed")
        wait_for(lambda: any(checkpoints.glob("step-*")) and works_on(second, "RayTrainWorker"), command)
        kill(second)
        assert not (checkpoints / "step-00000040").exists()
    finish(command, tmp_path)
    weights = [tmp_path / run / "phase1" / "model" / "model.safetensors" for run in ("disturbed", "alone")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    lines = (tmp_path / "disturbed" / "phase1" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, 41))


@contextmanager
def node(folder: Path, environment: dict[str, str], *options: str) -> Iterator[psutil.Process]:
    """Yield the first process of a node; all of them are gone at the end."""
    log = folder.with_suffix(".log")
    for _ in range(TRIES):
        shutil.rmtree(folder, ignore_errors=True)
        agents = ("dashboard-agent-grpc", "dashboard-agent-listen", "metrics-export", "runtime-env-agent")
        ports = [f"--{agent}-port={free_port(0)}" for agent in agents]
        further = [f"--temp-dir={folder}", "--object-store-memory=100000000", "--disable-usage-stats", "--block"]
        with log.open("w") as output:
            command = [sys.executable, "-c", START, "start", *options, *ports, *further]
            process = psutil.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
        try:
            while "Ray runtime started" not in log.read_text() and process.poll() is None:
                time.sleep(0.2)
            if process.poll() is None:
                yield process
                return
        finally:
            kill(process)
    raise AssertionError(log.read_text())


def kill(process: psutil.Process) -> None:
    """Kill a process and all below it, as when a machine goes."""
    with suppress(psutil.NoSuchProcess):
        gone = [process, *process.children(recursive=True)]
        for each in gone:
            with suppress(psutil.NoSuchProcess):
                each.kill()
        _, alive = psutil.wait_procs(gone, timeout=60)
        assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]


def works_on(node: psutil.Process, what: str) -> bool:
    """Return whether a process of the node has this in its command line."""
    for process in node.children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if what in " ".join(process.cmdline()):
                return True
    return False


def wait_for(seen: Callable[[], object], command: subprocess.Popen[bytes], within_s: float = 600) -> None:
    """Return as soon as something is seen; the command must be running until then."""
    deadline = time.monotonic() + within_s
    while not seen():
        assert command.poll() is None, "the command ended before a node could be killed"
        assert time.monotonic() < deadline, "the command did not come so far in time"
        time.sleep(0.02)


def finish(command: subprocess.Popen[bytes], folder: Path, within_s: float = 900) -> None:
    """Wait for a command that must end well."""
    try:
        assert command.wait(within_s) == 0, (folder / "log.txt").read_text()[-5000:]
    finally:
        command.kill()


def copy(data_dir: Path, to: Path, *stages: str) -> None:
    for stage in stages:
        shutil.copytree(data_dir / stage, to / stage)


def images(data_dir: Path) -> dict[int, bytes]:
    """Return the bytes of each image by its key."""
    samples = Samples(data_dir / "images")
    return {key: samples.read(row) for row, key in enumerate(samples.table["key"].to_pylist())}
