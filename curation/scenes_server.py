"""A local HTTP server for drawn scenes and photographs, with the faults that downloads meet in the wild.

/images/000012.jpg     the image          /missing/...  404                 /page/...       a web page, status 200
/slow/000012.jpg       the image, late    /error/...    500                 /truncated/...  the first half of the image
"""

from __future__ import annotations

import errno
import logging
import mimetypes
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from curation.scenes import ScenesConfig

log = logging.getLogger(__name__)

_PAGE = b"<!doctype html><title>Moved</title><p>The image that was here has moved.</p>"


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256

    def __init__(self, port: int, root: Path, slow_s: float | None) -> None:
        self.root = root.resolve()
        self.slow_s = slow_s
        """delay of /slow/ in seconds; None for a plain folder"""
        super().__init__(("127.0.0.1", port), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002  (the base class calls it so)
        """Log at debug level: a client that hangs up early is nothing to show."""
        log.debug("request from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"  # keep-alive: every answer states its length
    disable_nagle_algorithm = True
    server: _Server

    def do_GET(self) -> None:
        """Answer by the first part of the path; for a plain folder, the file."""
        path = unquote(urlsplit(self.path).path).lstrip("/")
        kind, _, name = path.partition("/")
        if self.server.slow_s is None:
            self._send_file(path)
        elif kind == "images":
            self._send_file(name)
        elif kind == "slow":
            time.sleep(self.server.slow_s)
            self._send_file(name)
        elif kind == "truncated":
            self._send_file(name, share=0.5)
        elif kind == "page":
            self._send(HTTPStatus.OK, "text/html", _PAGE)
        elif kind == "error":
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "text/plain", b"out of order\n")
        else:
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"no such address\n")

    def do_HEAD(self) -> None:
        """Answer as for GET, without the content."""
        self.do_GET()

    def _send_file(self, path: str, share: float = 1.0) -> None:
        file = (self.server.root / path).resolve()
        if not file.is_relative_to(self.server.root) or not file.is_file():
            self._send(HTTPStatus.NOT_FOUND, "text/plain", b"no such image\n")
            return
        content = file.read_bytes()
        kind = mimetypes.guess_type(file.name)[0] or "application/octet-stream"
        self._send(HTTPStatus.OK, kind, content[: round(share * len(content))])

    def _send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class names it so)
        """Log requests at debug level instead of writing to stderr."""
        log.debug(format, *args)


@contextmanager
def serve_scenes(scenes_dir: Path, config: ScenesConfig) -> Iterator[str]:
    """Serve a folder made by `draw_scenes` on the config's port and yield the base address.

    Raises: OSError that names the port and the way out when it is taken.
    """
    with _serve(scenes_dir / "images", config.port, config.slow_s) as url:
        yield url


@contextmanager
def serve_folder(root: Path, port: int) -> Iterator[str]:
    """Serve the files under a folder, without faults, and yield the base address; port 0 takes a free one.

    Raises: OSError that names the port and the way out when it is taken.
    """
    with _serve(root, port, None) as url:
        yield url


@contextmanager
def _serve(root: Path, port: int, slow_s: float | None) -> Iterator[str]:
    try:
        server = _Server(port, root, slow_s)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise OSError(
            error.errno,
            f"port {port} on 127.0.0.1 is taken: end the other run that serves images there, or choose another port "
            f"(another port means other addresses, hence other keys, and a new folder)",
        ) from error
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    log.info("serving %s at http://127.0.0.1:%d", root, server.server_port)
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
