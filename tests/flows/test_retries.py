"""What is tried again and what is not, by real tasks in real flow runs."""

from __future__ import annotations

from collections.abc import Callable
from email.message import Message
from urllib.error import HTTPError, URLError

import pytest
from prefect import flow
from ray.exceptions import NodeDiedError, RayTaskError, WorkerCrashedError

from curation.gate import CollapsedError
from flows.retries import is_transient, retried


def answer(code: int) -> HTTPError:
    return HTTPError("http://127.0.0.1/captions.tsv", code, "", Message(), None)


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def of_a_ray_task(cause: Exception) -> Exception:
    found: Exception = RayTaskError("parse_part", "traceback", cause).as_instanceof_cause()
    return found


@pytest.mark.parametrize(
    "error",
    [
        ConnectionResetError(),
        TimeoutError(),
        URLError("no route"),
        CollapsedError("names of hosts do not resolve"),
        answer(503),
        answer(429),
        NodeDiedError("its raylet is gone"),
        WorkerCrashedError(),
        of_a_ray_task(ConnectionError()),
        caused(RuntimeError("training failed"), NodeDiedError("its raylet is gone")),
    ],
)
def test_networks_and_nodes_may_come_back(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        None,
        ValueError("steps = 0"),
        FileNotFoundError(),
        PermissionError(),
        answer(404),
        of_a_ray_task(ValueError("caption is no text")),
        caused(ValueError("table = cc12m"), ConnectionError()),
        RuntimeError("too many undecodable images"),
        FloatingPointError(),
        MemoryError(),
    ],
)
def test_what_is_wrong_stays_wrong(error: Exception | None) -> None:
    assert not is_transient(error)


@pytest.mark.usefixtures("prefect_api")
@pytest.mark.parametrize(("errors", "tries"), [([ConnectionError(), TimeoutError()], 3), ([ValueError("wrong")], 1)])
def test_a_stage_goes_on_after_a_transient_cause_and_fails_at_once_after_another(
    errors: list[Exception], tries: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.retries.DELAYS_S", (0.0, 0.0))
    tried = []

    def work() -> str:
        tried.append(1)
        if len(tried) <= len(errors):
            raise errors[len(tried) - 1]
        return "done"

    @flow
    def stage() -> str:
        return retried(work)()

    if tries == 1:
        with pytest.raises(ValueError, match="wrong"):
            stage()
    else:
        assert stage() == "done"
    assert len(tried) == tries


def test_tasks_keep_the_name_of_the_work() -> None:
    def fetch() -> None: ...

    work: Callable[[], None] = fetch
    assert retried(work).name == "fetch"
