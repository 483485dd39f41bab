"""Parts of a stage as Ray tasks: on all cores of a machine or cluster, each with its line on the dashboard.

A node may go at any time: its tasks start anew on others. What is left when a stage fails, or is cancelled, is ended.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError

from curation.download import DownloadConfig
from curation.rounds import RunShards, fetch_shard
from flows.cluster import ray_cluster

Job = TypeVar("Job")
Result = TypeVar("Result")

STARTS = 3
"""times that a task is started before its stage fails: a node may go, a lasting error is one in each start"""


def map_by_ray(do: Callable[[Job], Result], jobs: Iterable[Job], num_gpus: int = 0) -> Iterator[Result]:
    """Yield `do(job)` in the order of the jobs, each a Ray task of one CPU (and of GPUs); a single job is done here.

    Jobs are paths and settings: what they read and write must lie where all nodes reach it.

    Raises: what a job raised, or ChildProcessError when none of its starts gave a result.
    """
    jobs = list(jobs)
    if len(jobs) < 2:  # starting Ray would take longer than a part
        yield from map(do, jobs)
        return
    with ray_cluster(), _running() as running:
        task: Any = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=STARTS - 1)(do)
        name = getattr(do, "__name__", "part")
        running += [task.options(name=f"{name} {at + 1}/{len(jobs)}").remote(job) for at, job in enumerate(jobs)]
        for each in tuple(running):
            ray.wait([each])
            running.remove(each)
            yield _result(each)


def run_by_ray(do: Callable[[Job], Result], at_once: int, jobs: Iterable[Job]) -> Generator[Result, None, None]:
    """Yield `do(job)` in the order in which jobs end, each a Ray task of one CPU; jobs are drawn when there is room.

    Raises: as `map_by_ray`.
    """
    waiting = iter(jobs)
    with ray_cluster(), _running() as running:
        task: Any = ray.remote(num_cpus=1, max_retries=STARTS - 1)(do)
        while True:
            running += [task.options(name=str(job)).remote(job) for job in islice(waiting, at_once - len(running))]
            if not running:
                return
            (done, *_), _ = ray.wait(running, num_returns=1)
            running.remove(done)
            yield _result(done)


def shards_by_ray(config: DownloadConfig) -> RunShards:
    """Return what fetches the shards of a download as Ray tasks, `config.processes` of them at a time."""
    return partial(run_by_ray, fetch_shard, config.processes)


def gpus_of(device: str | None) -> int:
    """Return how many GPUs a Ray task on this device needs."""
    return int(device is not None and device.startswith("cuda"))


@contextmanager
def _running() -> Iterator[list[Any]]:
    """Yield a list for running tasks; those that it holds at the end are ended, wherever they run."""
    tasks: list[Any] = []
    try:
        yield tasks
    finally:
        # Never one that is done: while its end is being written down, cancelling it crashes this process (Ray 2.60).
        _, left = ray.wait(tasks, num_returns=len(tasks), timeout=0) if tasks else ([], [])
        for task in left:
            ray.cancel(task, force=True)


def _result(task: Any) -> Any:
    try:
        return ray.get(task)
    except RayTaskError as error:
        raise error.cause from error  # its message without the trace of another process
    except RayError as error:
        raise ChildProcessError(f"a part has given no result in {STARTS} starts: {error}") from error
