"""Slots of real concurrency limits."""

from __future__ import annotations

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate

from flows.limits import slot


def held(name: str) -> int:
    with get_client(sync_client=True) as client:
        return client.read_global_concurrency_limit_by_name(name).active_slots


@pytest.mark.usefixtures("prefect_api")
def test_a_slot_is_held_as_long_as_the_work_lasts() -> None:
    with get_client(sync_client=True) as client:
        client.create_global_concurrency_limit(GlobalConcurrencyLimitCreate(name="ovens", limit=1))

    @flow
    def bake(is_needed: bool) -> int:
        with slot("ovens", is_needed):
            return held("ovens")

    assert bake(True) == 1
    assert held("ovens") == 0
    assert bake(False) == 0


@pytest.mark.usefixtures("prefect_api")
def test_without_the_limit_nobody_waits() -> None:
    @flow
    def bake() -> str:
        with slot("no such limit"):
            return "done"

    assert bake() == "done"


def test_outside_a_run_no_server_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    with slot("downloads"):
        pass
