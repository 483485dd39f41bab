"""Parts of a stage as Ray tasks: on all cores of a machine or cluster, each with its line on the dashboard."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import ray

from flows.cluster import ray_cluster

Job = TypeVar("Job")
Result = TypeVar("Result")

STARTS = 3
"""times that a task is started before its stage fails: a node may go, a lasting error is one in each start"""


def map_by_ray(do: Callable[[Job], Result], jobs: Iterable[Job], num_gpus: int = 0) -> Iterator[Result]:
    """Yield `do(job)` in the order of the jobs, each a Ray task of one CPU (and of GPUs); a single job is done here.

    Jobs are paths and settings: what they read and write must lie where all nodes reach it.
    """
    jobs = list(jobs)
    if len(jobs) < 2:  # starting Ray would take longer than a part
        yield from map(do, jobs)
        return
    with ray_cluster():
        task: Any = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=STARTS - 1)(do)
        name = getattr(do, "__name__", "part")
        running = [task.options(name=f"{name} {number + 1}/{len(jobs)}").remote(job) for number, job in enumerate(jobs)]
        for result in running:
            yield ray.get(result)


def gpus_of(device: str | None) -> int:
    """Return how many GPUs a Ray task on this device needs."""
    return int(device is not None and device.startswith("cuda"))
