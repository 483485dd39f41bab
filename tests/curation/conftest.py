"""A small web that misbehaves in known ways, and data folders made by hand."""

from __future__ import annotations

import io
import ssl
import struct
import subprocess
import threading
import time
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Protocol

import pyarrow as pa
import pytest
from PIL import Image

from curation.entities import write_postings
from curation.manifest import close_stage, open_stage, write_part
from curation.schema import ENTITIES, image_key, part_name

Captions = Sequence[str] | Sequence[Sequence[str]]
"""The entities of an image's one caption, or of each of its captions."""


class MakeData(Protocol):
    def __call__(self, data_dir: Path, images: Mapping[str, Captions], num_parts: int = 1) -> Path: ...


def jpeg(number: int, size: tuple[int, int] = (48, 40)) -> bytes:
    buffer = io.BytesIO()
    Image.linear_gradient("L").resize(size).convert("RGB").rotate(number).save(buffer, "JPEG")
    return buffer.getvalue()


class Web(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: Counter[str] = Counter()
        self.agents: set[str] = set()
        self.at_once = self.most_at_once = 0
        self.counting = threading.Lock()
        self.ended = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    """/KIND/NUMBER: the kind of answer, and the image where there is one."""

    protocol_version = "HTTP/1.1"
    server: Web

    def do_GET(self) -> None:
        self.server.asked[self.path] += 1
        self.server.agents.add(self.headers["User-Agent"])
        kind, number = self.path.split("/")[1:3]
        image = jpeg(int(number.partition("?")[0]))
        is_first = self.server.asked[self.path] == 1
        match kind:
            case "image":
                self.answer(image)
            case "paced":
                with self.server.counting:
                    self.server.at_once += 1
                    self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
                time.sleep(0.05)
                with self.server.counting:
                    self.server.at_once -= 1
                self.answer(image)
            case "wrong-type":
                self.answer(image, headers={"Content-Type": "text/html"})
            case "slow":
                self.slowly(image)
            case "hang":
                self.server.ended.wait()
            case "webp" | "avif" | "gif" | "cmyk" | "turned" | "deep-grey":
                self.answer(_unusual(kind))
            case "flaky":
                self.answer(b"", 500) if is_first else self.answer(image)
            case "busy":
                self.answer(b"", 429, {"Retry-After": "0"}) if is_first else self.answer(image)
            case "silent":
                self.answer(b"", 429, {"Retry-After": "3600"})
            case "forbidden" | "gone":
                self.answer(b"", 403 if kind == "forbidden" else 410)
            case "garbled":
                self.wfile.write(b"220 mail.example ready\r\n\r\n")
                self.close_connection = True
            case "broken":
                self.answer(b"", 500)
            case "page":
                self.answer(b"<!doctype html><title>gone</title>", headers={"Content-Type": "image/jpeg"})
            case "svg":
                self.answer(b'<svg xmlns="http://www.w3.org/2000/svg"/>', headers={"Content-Type": "image/svg+xml"})
            case "empty":
                self.answer(b"")
            case "cut":
                self.answer(image[: len(image) // 2])
            case "corrupt":
                self.answer(image.replace(b"\xff\xc4", b"\xff\xc4\xff\xff\xff\xff"))
            case "short":
                self.answer(image[: len(image) // 2], headers={"Content-Length": str(len(image))})
                self.close_connection = True
            case "bomb":
                self.answer(_huge_png())
            case "move":
                self.answer(b"", 302, {"Location": f"/image/{number}"})
            case "chain":
                steps = int(self.path.partition("?")[2] or 3)
                self.answer(b"", 307, {"Location": f"?{steps - 1}" if steps else f"/image/{number}"})
            case "loop":
                self.answer(b"", 302, {"Location": self.path})
            case "inwards":
                self.answer(b"", 301, {"Location": "http://10.0.0.1/secret.jpg"})
            case "ftp":
                self.answer(b"", 301, {"Location": "ftp://127.0.0.1/image.jpg"})
            case "noai":
                self.answer(image, headers={"X-Robots-Tag": "noarchive, noai"})
            case "noai-others":
                self.answer(image, headers={"X-Robots-Tag": "otherbot: noai"})
            case "drip" | "endless":
                self.stream(b"x" if kind == "drip" else b"x" * 100_000)
            case _:
                self.answer(b"", 404)

    def answer(self, content: bytes, status: int = 200, headers: Mapping[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def slowly(self, content: bytes) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        for start in range(0, len(content), 200):
            self.wfile.write(content[start : start + 200])
            time.sleep(0.05)

    def stream(self, piece: bytes) -> None:
        """Send a piece every 50 ms until the other side has enough: no read ever waits long."""
        self.send_response(200)
        self.end_headers()
        self.close_connection = True
        while not self.server.ended.wait(0.05):
            try:
                self.wfile.write(piece)
            except OSError:
                return

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def _unusual(kind: str) -> bytes:
    """Return an image of a kind that readers trip over, 60 x 50, red at its top left."""
    image = Image.new("RGB", (60, 50), "red")
    image.paste("blue", (30, 0, 60, 50))
    buffer = io.BytesIO()
    if kind == "gif":
        frames = [Image.new("RGB", image.size, colour) for colour in ("green", "black")]
        image.save(buffer, "GIF", save_all=True, append_images=frames)
    elif kind == "cmyk":
        image.convert("CMYK").save(buffer, "JPEG")
    elif kind == "turned":
        exif = Image.Exif()
        exif[0x0112] = 6
        image.save(buffer, "JPEG", exif=exif)
    elif kind == "deep-grey":
        Image.linear_gradient("L").resize(image.size).convert("I;16").point(lambda value: value * 257).save(
            buffer, "PNG"
        )
    else:
        image.save(buffer, kind.upper())
    return buffer.getvalue()


def _huge_png() -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    return b"\x89PNG\r\n\x1a\n" + chunk + struct.pack(">I", 1000) + b"IDAT" + b"\0" * 1000


@contextmanager
def _serving(server: ThreadingHTTPServer, ended: threading.Event | None = None) -> Iterator[None]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        if ended:
            ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def web() -> Iterator[Web]:
    server = Web()
    with _serving(server, server.ended):
        yield server


@pytest.fixture
def other_web() -> Iterator[Web]:
    """Yield a second server: what a host does is held against all its images."""
    server = Web()
    with _serving(server, server.ended):
        yield server


@pytest.fixture
def tls_port(tmp_path: Path) -> Iterator[int]:
    """Yield the port of a server whose certificate nobody has signed but itself."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=127.0.0.1", "-days", "1"),
            *("-keyout", str(key), "-out", str(certificate)),
        ],
        check=True,
        capture_output=True,
    )
    server = Web()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    with _serving(server, server.ended):
        yield server.server_address[1]


@pytest.fixture(scope="session")
def make_data() -> MakeData:
    """Return a function that makes a data folder with entities/ and postings/ of images (address -> captions)."""

    def make(data_dir: Path, images: Mapping[str, Captions], num_parts: int = 1) -> Path:
        rows = []
        for address, captions in images.items():
            field = "url" if "://" in address else "image"
            several = [captions] if not captions or isinstance(captions[0], str) else captions
            for caption_id, entities in enumerate(several):
                text = " and ".join(entities)
                mentions = [{"entity": e, "start": text.index(e), "end": text.index(e) + len(e)} for e in entities]
                row = {"key": image_key(address), "caption_id": caption_id, field: address, "caption": text}
                rows.append({**row, "entities": sorted(set(entities)), "mentions": mentions})
        open_stage(data_dir / "entities", "entities", {}, {})
        # Rows are dealt out in turn, so that the captions of one image lie in several parts.
        tables = [pa.Table.from_pylist(rows[part::num_parts], schema=ENTITIES) for part in range(num_parts)]
        parts = [write_part(data_dir / "entities", part_name(i), table) for i, table in enumerate(tables)]
        close_stage(data_dir / "entities", parts)
        write_postings(data_dir)
        return data_dir

    return make
