from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

import curation.transfer
from curation.transfer import TRIES, fetch_table

ROOT = Path(__file__).resolve().parents[2]
CONTENT = bytes(range(256)) * 4000


class TableServer(ThreadingHTTPServer):
    """Serves one file with Range and ETag, and breaks off as it is told."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.content = CONTENT
        self.tag = '"1"'
        self.has_ranges = True
        self.breaks_after: list[int] = []
        """bytes after which each of the next answers breaks off"""
        self.refusals: list[int] = []
        """status codes of the next answers"""
        self.holds_after: int | None = None
        """bytes after which the next answer waits until it is released"""
        self.released = threading.Event()
        self.asked: list[str | None] = []
        """the Range header of every request"""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data/table.tsv?key=1"


class _Handler(BaseHTTPRequestHandler):
    server: TableServer

    def do_GET(self) -> None:
        server, wanted = self.server, self.headers.get("Range")
        server.asked.append(wanted)
        if server.refusals:
            self.send_error(server.refusals.pop(0))
            return
        start = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and server.has_ranges else 0
        if start and start >= len(server.content):
            self.send_error(416)
            return
        rest = server.content[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", server.tag)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(server.content) - 1}/{len(server.content)}")
        self.end_headers()
        if server.holds_after is not None:
            self.wfile.write(rest[: server.holds_after])
            server.holds_after = None
            server.released.wait(60)
            return
        self.wfile.write(rest[: server.breaks_after.pop(0)] if server.breaks_after else rest)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[TableServer]:
    monkeypatch.setattr(curation.transfer, "FIRST_WAIT_S", 0.0)
    server = TableServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_table_is_fetched_once_and_nothing_else_is_left(server: TableServer, tmp_path: Path) -> None:
    path = fetch_table(server.url, tmp_path / "tables")
    assert path == tmp_path / "tables" / "table.tsv"
    assert path.read_bytes() == CONTENT
    assert fetch_table(server.url, tmp_path / "tables") == path
    assert server.asked == [None]
    assert list((tmp_path / "tables").iterdir()) == [path]


def test_a_broken_connection_goes_on_behind_the_last_byte(
    server: TableServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.breaks_after = [300_000, 200_000]
    assert fetch_table(server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=300000-", "bytes=500000-"]
    assert "the connection ended early after 300,000 bytes; trying again" in caplog.text


def test_bytes_that_a_killed_run_has_left_are_not_fetched_again(server: TableServer, tmp_path: Path) -> None:
    server.breaks_after = [300_000] + [0] * TRIES
    with pytest.raises(OSError, match=rf"{TRIES} times in a row, after 300,000 bytes; they are kept in .*\.partial"):
        fetch_table(server.url, tmp_path)
    assert not (tmp_path / "table.tsv").exists()
    server.asked.clear()
    server.breaks_after = []
    assert fetch_table(server.url, tmp_path).read_bytes() == CONTENT
    assert server.asked == ["bytes=300000-"]


def test_a_file_that_changed_in_between_is_fetched_from_its_start(server: TableServer, tmp_path: Path) -> None:
    server.breaks_after = [300_000] + [0] * TRIES
    with pytest.raises(OSError, match="after 300,000 bytes"):
        fetch_table(server.url, tmp_path)
    server.content, server.tag, server.breaks_after = CONTENT[::-1] + b"more", '"2"', []
    assert fetch_table(server.url, tmp_path).read_bytes() == CONTENT[::-1] + b"more"
    assert server.asked[-2:] == ["bytes=300000-", None]


def test_a_server_without_ranges_gives_the_whole_file(server: TableServer, tmp_path: Path) -> None:
    server.has_ranges, server.breaks_after = False, [300_000]
    assert fetch_table(server.url, tmp_path).read_bytes() == CONTENT


def test_killed_between_the_last_byte_and_the_name_nothing_is_fetched(server: TableServer, tmp_path: Path) -> None:
    path = fetch_table(server.url, tmp_path)
    partial = path.rename(tmp_path / "table.tsv.partial")
    (tmp_path / "table.tsv.partial.json").write_text(
        f'{{"url": "{server.url}", "size": {len(CONTENT)}, "mark": "\\"1\\""}}'
    )
    assert fetch_table(server.url, tmp_path).read_bytes() == CONTENT
    assert not partial.exists()


def test_errors_of_the_server_are_tried_again_and_refusals_are_not(server: TableServer, tmp_path: Path) -> None:
    server.refusals = [503, 429]
    assert fetch_table(server.url, tmp_path).read_bytes() == CONTENT
    server.refusals = [404]
    with pytest.raises(OSError, match=r"table\.tsv.*: the server answers 404 Not Found; is the address right\?"):
        fetch_table(server.url, tmp_path / "other")


FETCH = """
import sys
from pathlib import Path
from curation.transfer import fetch_table
fetch_table(sys.argv[1], Path(sys.argv[2]))
"""


def test_a_transfer_killed_for_real_goes_on_where_it_was(server: TableServer, tmp_path: Path) -> None:
    server.content = CONTENT * 4
    server.holds_after = len(CONTENT) * 3
    partial = tmp_path / "table.tsv.partial"
    process = subprocess.Popen([sys.executable, "-c", FETCH, server.url, str(tmp_path)], cwd=ROOT)
    while not partial.exists() or partial.stat().st_size < 2 << 20:
        assert process.poll() is None, "it ended before the kill"
        time.sleep(0.01)
    process.kill()
    process.wait()
    arrived = partial.stat().st_size
    assert fetch_table(server.url, tmp_path).read_bytes() == server.content
    assert server.asked == [None, f"bytes={arrived}-"]
