"""The server of scenes: true images, and each fault as it is announced."""

from __future__ import annotations

import http.client
import io
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from PIL import Image

from curation.scenes import ScenesConfig, draw_scenes
from curation.scenes_server import serve_folder, serve_scenes

CONFIG = ScenesConfig(num_images=4, num_held_out=1, port=18642, slow_s=0.2)


@pytest.fixture(scope="module")
def scenes_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_scenes(tmp_path_factory.mktemp("served") / "scenes", CONFIG)


@pytest.fixture
def connection(scenes_dir: Path) -> Iterator[http.client.HTTPConnection]:
    with serve_scenes(scenes_dir, CONFIG) as url:
        assert url == CONFIG.base_url
        link = http.client.HTTPConnection("127.0.0.1", CONFIG.port, timeout=5)
        yield link
        link.close()


def get(connection: http.client.HTTPConnection, path: str) -> tuple[int, str | None, bytes]:
    connection.request("GET", path)
    answer = connection.getresponse()
    return answer.status, answer.headers["Content-Type"], answer.read()


def test_one_connection_serves_many_images(connection: http.client.HTTPConnection, scenes_dir: Path) -> None:
    connection.connect()
    socket = connection.sock
    for index in range(4):
        content = (scenes_dir / f"images/{index:06d}.jpg").read_bytes()
        assert get(connection, f"/images/{index:06d}.jpg") == (200, "image/jpeg", content)
    assert connection.sock is socket


def test_faults_answer_as_announced(connection: http.client.HTTPConnection) -> None:
    assert get(connection, "/missing/000001.jpg")[0] == 404
    assert get(connection, "/error/000001.jpg")[0] == 500
    status, kind, content = get(connection, "/page/000001.jpg")
    assert (status, kind) == (200, "text/html")
    assert content.startswith(b"<!doctype html>")


def test_a_truncated_image_does_not_decode(connection: http.client.HTTPConnection) -> None:
    status, _, content = get(connection, "/truncated/000001.jpg")
    assert status == 200
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(content)).load()


def test_a_slow_address_answers_late_with_the_image(connection: http.client.HTTPConnection, scenes_dir: Path) -> None:
    begun = time.monotonic()
    assert get(connection, "/slow/000002.jpg")[2] == (scenes_dir / "images/000002.jpg").read_bytes()
    assert time.monotonic() - begun >= CONFIG.slow_s


@pytest.mark.usefixtures("connection")
def test_slow_addresses_do_not_hold_up_others() -> None:
    def fetch(path: str) -> float:
        begun = time.monotonic()
        link = http.client.HTTPConnection("127.0.0.1", CONFIG.port, timeout=5)
        assert get(link, path)[0] == 200
        link.close()
        return time.monotonic() - begun

    with ThreadPoolExecutor(9) as pool:
        slow = [pool.submit(fetch, "/slow/000000.jpg") for _ in range(8)]
        fast = pool.submit(fetch, "/images/000000.jpg")
        assert fast.result() < min(future.result() for future in slow)


@pytest.mark.parametrize("path", ["/captions.tsv", "/../captions.tsv", "/images/../captions.tsv", "/images/", "/"])
def test_only_images_are_served(connection: http.client.HTTPConnection, path: str) -> None:
    assert get(connection, path)[0] == 404


def test_a_taken_port_is_named_with_the_way_out(scenes_dir: Path) -> None:
    with (
        serve_scenes(scenes_dir, CONFIG),
        pytest.raises(
            OSError, match=r"port 18642 on 127\.0\.0\.1 is taken: end the other run .*, or choose another port"
        ),
        serve_scenes(scenes_dir, CONFIG),
    ):
        pass


def test_the_port_is_free_again_after_serving(scenes_dir: Path) -> None:
    for _ in range(2):
        with serve_scenes(scenes_dir, CONFIG):
            pass


def test_a_plain_folder_is_served_as_it_lies(tmp_path: Path) -> None:
    (tmp_path / "slow dogs").mkdir()
    (tmp_path / "slow dogs" / "a.png").write_bytes(b"png")
    with serve_folder(tmp_path, CONFIG.port):
        link = http.client.HTTPConnection("127.0.0.1", CONFIG.port, timeout=5)
        assert get(link, "/slow%20dogs/a.png") == (200, "image/png", b"png")
        assert get(link, "/../etc/passwd")[0] == 404
        link.close()
