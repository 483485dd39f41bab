from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from flows.cluster import _start_ray

LISTENERS = """
from flows.cluster import ray_cluster
import json, psutil, ray
with ray_cluster():
    ray.get(ray.remote(lambda: None).remote())
    me = psutil.Process()
    found = [
        (process.name(), connection.laddr.ip.removeprefix("::ffff:"))
        for process in (me, *me.children(recursive=True))
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    ]
print(json.dumps(found))
"""


def test_a_ray_that_is_started_here_joins_no_other_and_listens_on_loopback_alone() -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as folder:  # short: sockets lie in it
        latest = Path(folder) / "ray" / "ray_current_cluster"
        latest.parent.mkdir()
        latest.write_text("127.0.0.1:1")  # where Ray looks for the cluster that was started last on this machine
        environment["RAY_TMPDIR"] = folder
        done = subprocess.run([sys.executable, "-c", LISTENERS], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listeners = json.loads(done.stdout.splitlines()[-1])
    assert {"raylet", "gcs_server"} <= {name for name, _ in listeners}
    assert {address for _, address in listeners} <= {"127.0.0.1", "::1"}


def test_a_signal_to_end_while_ray_starts_reaches_its_own_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    class Cancelled(BaseException):
        pass

    def cancel(*_: object) -> None:
        raise Cancelled

    def start_and_be_cancelled(**_: object) -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(15))  # as Ray does
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr("ray.init", start_and_be_cancelled)
    before = signal.signal(signal.SIGTERM, cancel)
    try:
        with pytest.raises(Cancelled):
            _start_ray({})
        assert signal.getsignal(signal.SIGTERM) is cancel
    finally:
        signal.signal(signal.SIGTERM, before)
