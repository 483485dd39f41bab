"""Parts as tasks of a real Ray cluster on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
import ray

from curation.captions import IngestConfig, ingest
from curation.manifest import read_manifest
from curation.parse import parse
from flows.parts import STARTS, map_by_ray, run_by_ray

CAPTIONS = ["a cat on a sofa", "two dogs near a light blue bus", "nothing to see", "a man with an umbrella"] * 5
PARSE = """
import sys
from pathlib import Path
from curation.parse import parse
from flows.parts import map_by_ray
parse(Path(sys.argv[1]), map_parts=map_by_ray)
"""


@pytest.fixture
def captions_dir(tmp_path: Path) -> Path:
    table = tmp_path / "captions.tsv"
    rows = [f"http://127.0.0.1/{number}.jpg\t{caption}" for number, caption in enumerate(CAPTIONS)]
    table.write_text("\n".join(["url\tcaption", *rows]) + "\n")
    return table


def ingested(table: Path, data_dir: Path) -> Path:
    ingest(table, data_dir, IngestConfig(part_rows=8))
    return data_dir


def test_parts_parsed_by_ray_tasks_are_those_of_one_process_also_after_a_kill(
    captions_dir: Path, tmp_path: Path
) -> None:
    alone, by_ray = ingested(captions_dir, tmp_path / "alone"), ingested(captions_dir, tmp_path / "by_ray")
    expected = parse(alone)
    assert len(expected.parts) == 3
    command = [sys.executable, "-c", PARSE, str(by_ray)]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    while not list((by_ray / "entities").glob("part-*.json")) and killed.poll() is None:
        pass
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert parse(by_ray, map_parts=map_by_ray).digest == expected.digest
    assert read_manifest(by_ray / "postings").digest == read_manifest(alone / "postings").digest


def test_a_single_part_needs_no_cluster() -> None:
    assert list(map_by_ray(os.path.basename, ["folder/name"])) == ["name"]


@dataclass(frozen=True)
class Job:
    """What one of the tasks below does, once in its first start."""

    what: str
    started: Path
    """gets a line with the process of each start"""


def do(job: Job) -> str:
    """Do as told, in a process that says that it has started."""
    with job.started.open("a") as file:
        file.write(f"{os.getpid()}\n")
    if job.what == "lose the process":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.what == "lose the first process" and len(job.started.read_text().splitlines()) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.what == "fail when the other one has begun":
        while not job.started.with_name("wait").exists():
            time.sleep(0.05)
        raise ValueError("the caption has no words")
    if job.what == "wait":
        time.sleep(3600)
    return job.what


@pytest.fixture(scope="module")
def joined() -> Iterator[None]:
    """Have joined a Ray of two CPUs, which goes on when a stage has ended."""
    ray.init(address="local", num_cpus=2, include_dashboard=False, object_store_memory=100_000_000)
    yield
    ray.shutdown()


@pytest.mark.usefixtures("joined")
def test_an_error_is_the_jobs_own_and_ends_the_jobs_beside_it(tmp_path: Path) -> None:
    jobs = [Job("fail when the other one has begun", tmp_path / "fail"), Job("wait", tmp_path / "wait")]
    for run in (map_by_ray(do, jobs), run_by_ray(do, 2, jobs)):
        with pytest.raises(ValueError, match=r"^the caption has no words$"):
            list(run)
        pid = int((tmp_path / "wait").read_text().splitlines()[-1])
        assert not psutil.pid_exists(pid) or psutil.Process(pid).wait(60) is None
        (tmp_path / "wait").unlink()


@pytest.mark.usefixtures("joined")
def test_a_job_whose_process_is_lost_starts_anew_until_it_was_lost_too_often(tmp_path: Path) -> None:
    once, always = Job("lose the first process", tmp_path / "once"), Job("lose the process", tmp_path / "always")
    assert list(run_by_ray(do, 1, [once])) == [once.what]
    assert len(once.started.read_text().splitlines()) == 2
    with pytest.raises(ChildProcessError, match="a part has given no result in 3 starts"):
        list(run_by_ray(do, 1, [always]))
    assert len(always.started.read_text().splitlines()) == STARTS == 3


@pytest.mark.usefixtures("joined")
def test_jobs_are_drawn_when_there_is_room(tmp_path: Path) -> None:
    drawn: list[int] = []

    def jobs() -> Iterator[Job]:
        for number in range(5):
            drawn.append(number)
            yield Job(str(number), tmp_path / str(number))

    results = run_by_ray(do, 2, jobs())
    first = next(results)
    assert drawn == [0, 1]
    assert {first, *results} == {"0", "1", "2", "3", "4"}
