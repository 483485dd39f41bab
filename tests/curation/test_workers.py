from __future__ import annotations

import time
from pathlib import Path

import pytest

from curation.workers import Workers


def test_results_come_from_at_most_the_stated_processes(tmp_path: Path) -> None:
    with Workers("os.getpgid", processes=2, deadline_s=60, log_dir=tmp_path) as workers:
        groups = list(workers.run([0] * 6))
    # Each worker leads a process group of its own.
    assert len(set(groups)) <= 2
    assert len(groups) == 6
    assert not any(Path(f"/proc/{group}").exists() for group in groups)


def test_a_worker_past_its_deadline_is_ended_with_its_children(tmp_path: Path) -> None:
    naps = [["sleep", "86399.25"]]
    with (
        Workers("subprocess.call", processes=1, deadline_s=2, log_dir=tmp_path) as workers,
        pytest.raises(ChildProcessError, match=r"\['sleep', .*\] was not done within 2 s; .* \(attempt 2 of 2"),
    ):
        list(workers.run(naps))
    end = time.monotonic() + 5
    while _command_lines("86399.25") and time.monotonic() < end:
        time.sleep(0.05)
    assert not _command_lines("86399.25")


def test_an_error_is_told_with_the_last_line_of_the_log(tmp_path: Path) -> None:
    with (
        Workers("json.loads", processes=1, deadline_s=60, log_dir=tmp_path, attempts=1) as workers,
        pytest.raises(
            ChildProcessError, match=r"\{\] ended without a result; .*log: json.decoder.JSONDecodeError: Expecting"
        ),
    ):
        list(workers.run(["{]"]))


def test_a_task_whose_worker_was_killed_is_tried_again(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with Workers("os.system", processes=1, deadline_s=60, log_dir=tmp_path / "log") as workers:
        results = list(workers.run([f"test -e {seen} || {{ touch {seen}; kill -9 $PPID; }}"]))
    assert results == [0]


def _command_lines(text: str) -> list[str]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if text in line.split():
            found.append(line)
    return found
