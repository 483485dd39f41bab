from __future__ import annotations

import pytest

from curation.gate import CollapsedError, SuccessGate, probe_names, reason_of_collapse
from curation.manifest import Part

DEAD = [f"no-such-host-{number}.invalid" for number in range(6)]


def _part(number: int, stored: int, **causes: int) -> Part:
    return Part(f"{number:05d}.tar", stored, "", causes)


def test_names_that_do_not_resolve_stop_the_run_with_the_reason() -> None:
    with pytest.raises(
        CollapsedError, match=r"names of hosts do not resolve: 0 of 6 do \(.+ 6\); look at the resolver"
    ):
        probe_names(DEAD, 0.2)


@pytest.mark.parametrize(
    ("hosts", "min_success_rate"),
    [(DEAD[:4], 0.2), (DEAD, 0), ([*(f"10.0.0.{number}" for number in range(9)), "[::1]", "localhost"], 1)],
    ids=["few names", "gate off", "numbers"],
)
def test_too_few_names_numbers_and_a_gate_that_is_off_are_not_looked_up(
    hosts: list[str], min_success_rate: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []
    monkeypatch.setattr("socket.getaddrinfo", lambda *args, **_: asked.append(args))
    probe_names(hosts, min_success_rate)
    assert asked == []


def test_a_share_of_names_that_resolve_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def look_up(name: str, *_: object, **__: object) -> list[object]:
        asked.append(name)
        if name in DEAD[:3]:
            raise OSError("no such name")
        return []

    monkeypatch.setattr("socket.getaddrinfo", look_up)
    probe_names(DEAD, 0.5)
    assert sorted(asked) == DEAD


def test_shards_that_yield_too_little_are_named_once_enough_images_were_tried() -> None:
    gate = SuccessGate(0.2, 100)
    assert gate.collapsed(_part(0, 3, dns=57)) == []
    bad = _part(1, 2, dns=50, timeout=8)
    assert gate.collapsed(bad) == [_part(0, 3, dns=57), bad]
    assert reason_of_collapse([_part(0, 3, dns=57), bad], 0.2).startswith(
        "only 5 of the last 120 images could be stored (4.2%, expected at least 20%): dns 107, timeout 8; these 2"
    )


def test_a_collapse_after_a_good_beginning_is_seen_and_the_good_shards_stay() -> None:
    gate = SuccessGate(0.2, 100)
    assert gate.collapsed(_part(0, 90, http_404=10)) == []
    assert gate.collapsed(_part(1, 30, timeout=20)) == []
    late = [_part(2, 1, timeout=49), _part(3, 0, timeout=50)]
    assert gate.collapsed(late[0]) == []
    assert gate.collapsed(late[1]) == late


def test_a_third_of_dead_addresses_is_no_collapse() -> None:
    gate = SuccessGate(0.2, 100)
    assert not any(gate.collapsed(_part(number, 64, http_404=20, dns=16)) for number in range(5))
