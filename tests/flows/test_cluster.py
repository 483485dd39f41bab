from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

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
