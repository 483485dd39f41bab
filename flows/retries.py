"""What is tried again: work that a broken network or a dead node has ended, and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from http.client import HTTPException
from typing import Any, ParamSpec, TypeVar
from urllib.error import HTTPError, URLError

import ray.exceptions
from prefect import Task, task
from prefect.cache_policies import NO_CACHE

P = ParamSpec("P")
R = TypeVar("R")

DELAYS_S = (30.0, 300.0)
"""seconds before the second and the third try"""
TRANSIENT = (
    ConnectionError,
    TimeoutError,
    URLError,
    HTTPException,
    ray.exceptions.LocalRayletDiedError,
    ray.exceptions.NodeDiedError,
    ray.exceptions.ObjectLostError,
    ray.exceptions.RayActorError,
    ray.exceptions.RaySystemError,
    ray.exceptions.WorkerCrashedError,
)
BUSY = (408, 425, 429, 500, 502, 503, 504)
"""answers of a server that may be another one later"""


def retried(work: Callable[P, R]) -> Task[P, R]:
    """Return a stage's work as a task that is tried again after a transient cause; what is finished is not redone."""
    make: Callable[[Callable[P, R]], Task[P, R]] = task(
        retries=len(DELAYS_S),
        retry_delay_seconds=list(DELAYS_S),
        retry_condition_fn=_may_retry,
        cache_policy=NO_CACHE,  # truth is on disk
    )
    return make(work)


def is_transient(error: BaseException | None) -> bool:
    """Return whether the error, or what caused it, may be gone at the next try."""
    if error is None or isinstance(error, ValueError):
        return False
    if isinstance(error, HTTPError):
        return error.code in BUSY
    return isinstance(error, TRANSIENT) or is_transient(error.__cause__)


def _may_retry(_: Any, __: Any, state: Any) -> bool:
    return is_transient(state.result(raise_on_failure=False))
