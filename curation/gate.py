"""Two gates that stop a download which would fetch nothing: names that do not resolve, shards that yield too little.

A collapsed network looks like a list of dead addresses. Dead addresses are part of the trade (a third of CC12M's), so
only a share far below what lists of any age give counts as a collapse.
"""

from __future__ import annotations

import socket
import threading
from collections import Counter, deque
from collections.abc import Iterable
from ipaddress import ip_address
from queue import Empty, SimpleQueue
from time import monotonic

from curation.manifest import Part

PROBED_HOSTS = 50
"""names that are looked up before the first shard"""
LEAST_HOSTS = 5
"""names from which a share means something"""
PROBE_S = 20.0
"""seconds for all look-ups of the probe together"""


class CollapsedError(ConnectionError):
    """The run was stopped because something other than dead addresses keeps images away."""


def probe_names(hosts: Iterable[str], min_success_rate: float) -> None:
    """Look up the names of up to `PROBED_HOSTS` hosts at once.

    Raises: CollapsedError when a smaller share than `min_success_rate` of at least `LEAST_HOSTS` names resolves.
    """
    names = [host for host in dict.fromkeys(hosts) if not _is_number(host)][:PROBED_HOSTS]
    if len(names) < LEAST_HOSTS or min_success_rate == 0:
        return
    answers: SimpleQueue[tuple[str, str]] = SimpleQueue()
    for name in names:
        threading.Thread(target=_look_up, args=(name, answers), daemon=True).start()
    found: dict[str, str] = {}
    end = monotonic() + PROBE_S
    while len(found) < len(names):
        try:
            found.update([answers.get(timeout=max(0.0, end - monotonic()))])
        except Empty:
            break
    problems = Counter(filter(None, (found.get(name, f"no answer within {PROBE_S:g} s") for name in names)))
    resolved = len(names) - problems.total()
    if resolved < min_success_rate * len(names):
        raise CollapsedError(
            f"names of hosts do not resolve: {resolved} of {len(names)} do ({_most(problems)}); look at the resolver "
            f"(/etc/resolv.conf) and run the same command again, or pass --set min_success_rate=0 if the hosts are gone"
        )


class SuccessGate:
    """Watches the share of images that the latest shards stored."""

    def __init__(self, min_success_rate: float, num_images: int) -> None:
        self.min_success_rate = min_success_rate
        self.num_images = num_images
        self._recent: deque[Part] = deque()

    def collapsed(self, part: Part) -> list[Part]:
        """Take a finished shard; return the latest shards if they hold `num_images` and yield too little, else none."""
        self._recent.append(part)
        while sum(map(_tried, self._recent)) - _tried(self._recent[0]) >= self.num_images:
            self._recent.popleft()
        tried = sum(map(_tried, self._recent))
        stored = sum(part.rows for part in self._recent)
        if tried < self.num_images or stored >= self.min_success_rate * tried:
            return []
        return list(self._recent)


def reason_of_collapse(parts: Iterable[Part], min_success_rate: float) -> str:
    """Return what a stopped run says of the shards that collapsed."""
    shards = list(parts)
    causes = Counter[str]()
    for part in shards:
        causes.update(part.counts)
    stored, tried = sum(part.rows for part in shards), sum(map(_tried, shards))
    return (
        f"only {stored:,} of the last {tried:,} images could be stored ({stored / max(tried, 1):.1%}, expected at "
        f"least {min_success_rate:.0%}): {_most(causes)}; these {len(shards)} shards do not count. Look at network, "
        f"resolver and addresses and run the same command again, or, with a list that dead, pass "
        f"--set min_success_rate=0"
    )


def _tried(part: Part) -> int:
    return part.rows + sum(part.counts.values())


def _most(causes: Counter[str]) -> str:
    return ", ".join(f"{cause} {count:,}" for cause, count in causes.most_common(3))


def _look_up(name: str, answers: SimpleQueue[tuple[str, str]]) -> None:
    try:
        socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        answers.put((name, ""))
    except (OSError, UnicodeError) as error:
        answers.put((name, getattr(error, "strerror", None) or str(error)))


def _is_number(host: str) -> bool:
    try:
        ip_address(host.strip("[]"))
    except ValueError:
        return host == "localhost"
    return True
