from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from PIL import Image

from curation.download import DownloadConfig, download
from curation.gate import CollapsedError
from curation.image_bytes import perceptual_hash
from curation.images import Samples
from curation.manifest import read_manifest
from curation.scenes_server import serve_folder
from curation.schema import image_key

ROOT = Path(__file__).resolve().parent.parent.parent
CONFIG = DownloadConfig(
    image_size=32,
    timeout_s=3,
    rounds=1,
    round_pause_s=0,
    allow_private=True,
    max_bytes=2_000_000,
    threads=16,
    processes=1,
)
PACED = DownloadConfig(image_size=32, shard_size=30, threads=2, processes=1, round_pause_s=0, allow_private=True)


def _failures(data_dir: Path) -> dict[str, dict[str, Any]]:
    rows = pq.read_table(data_dir / "images" / "failures.parquet").to_pylist()
    return {row["address"]: row for row in rows}


def _digests(data_dir: Path) -> dict[int, str]:
    accounts = sorted((data_dir / "images").glob("*.images.parquet"))
    return {row["key"]: row["digest"] for path in accounts for row in pq.read_table(path).to_pylist()}


OUTCOMES = {
    "image": None,
    "wrong-type": None,
    "slow": None,
    "webp": None,
    "avif": None,
    "gif": None,
    "cmyk": None,
    "turned": None,
    "deep-grey": None,
    "flaky": None,
    "busy": None,
    "move": None,
    "chain": None,
    "noai-others": None,
    "missing": "http_404",
    "forbidden": "http_403",
    "gone": "http_410",
    "broken": "http_500",
    "page": "not_an_image",
    "svg": "not_an_image",
    "empty": "not_an_image",
    "cut": "undecodable",
    "corrupt": "undecodable",
    "short": "truncated",
    "hang": "timeout",
    "drip": "timeout",
    "endless": "too_large",
    "bomb": "too_many_pixels",
    "loop": "redirects",
    "inwards": "private_address",
    "ftp": "bad_address",
    "garbled": "bad_answer",
    "noai": "opted_out",
}
"""What becomes of each kind of answer of the test's web."""

TRIES = {"image": 1, "missing": 1, "forbidden": 1, "page": 1, "cut": 1, "noai": 1, "bomb": 1, "endless": 1}
TRIES |= {"flaky": 2, "busy": 2, "drip": 2, "hang": 2, "broken": 4, "short": 4}
"""Requests: 1 for what another try does not change; time-outs once per round; the others at once again, too."""


@pytest.mark.timeout(240)
def test_every_image_is_stored_or_fails_with_its_cause(
    web: Any, other_web: Any, tls_port: int, make_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = {f"{web.url}/{kind}/{number}": cause for number, (kind, cause) in enumerate(OUTCOMES.items())}
    # These have ports of their own, so that what they do is not held against the others.
    expected |= {f"{other_web.url}/silent/1": "http_429", f"{other_web.url}/silent/2": "http_429"}
    expected |= {"http://127.0.0.1:1/nobody": "connection", "http://no-such-host.invalid/1": "dns"}
    expected |= {
        f"https://127.0.0.1:{tls_port}/self-signed": "tls",
        f"{web.url.replace('http', 'https')}/no-tls": "tls",
    }
    root = tmp_path / "photos"
    (root / "deep").mkdir(parents=True)
    jpeg_of("red").save(root / "deep" / "red.png")
    jpeg_of("blue").save(tmp_path / "secret.png")
    (root / "link.png").symlink_to(tmp_path / "secret.png")
    expected |= {"deep/red.png": None, "absent.png": "no_file"}
    expected |= {
        "../secret.png": "outside_root",
        "link.png": "outside_root",
        str(tmp_path / "secret.png"): "outside_root",
    }
    data_dir = make_data(tmp_path / "data", {address: ["cat"] for address in expected})
    # The server is on loopback, so loopback is allowed; what else is private stays refused.
    monkeypatch.setenv("PYTHONPATH", str(_only_loopback_is_private(tmp_path)))

    manifest = download(data_dir, replace(CONFIG, allow_private=False, max_pause_s=0.1), image_root=root)

    failures = _failures(data_dir)
    failed = {address: cause for address, cause in expected.items() if cause}
    assert {address: row["cause"] for address, row in failures.items()} == failed
    stored = [address for address, cause in expected.items() if cause is None]
    samples = Samples(data_dir / "images")
    assert samples.keys.tolist() == sorted(map(image_key, stored))
    assert len(samples) + sum(manifest.counts.values()) == len(expected)
    assert manifest.counts == Counter(failed.values())
    card = json.loads((data_dir / "images" / "datacard.json").read_text())
    assert (card["figures"]["images"], card["drops"]) == (len(expected), manifest.counts)
    asked = {address: web.asked[address.removeprefix(web.url)] for address in expected if address.startswith(web.url)}
    tries = {address.split("/")[-2]: count for address, count in asked.items()}
    assert {kind: tries[kind] for kind in TRIES} == TRIES
    assert web.agents == {CONFIG.user_agent}
    assert 2 <= other_web.asked.total() <= 4, "asked again before the time that it stated"
    twice = {address for address, row in failures.items() if row["rounds"] == 2}
    assert {failures[address]["cause"] for address in twice} == {
        *("http_500", "http_429", "truncated", "timeout", "connection", "dns"),
    }
    assert {row["cause"] for address, row in failures.items() if address not in twice}.isdisjoint(
        failures[address]["cause"] for address in twice
    )
    hosts = {row["host"] for address, row in failures.items() if "://" in address}
    assert hosts == {"127.0.0.1", "no-such-host.invalid"}
    assert {failures[address]["host"] for address in ("absent.png", "link.png")} == {None}
    by_kind = {address.split("/")[-2]: samples.position(image_key(address)) for address in stored if "://" in address}
    shown = {kind: Image.open(io.BytesIO(samples.read(row))) for kind, row in by_kind.items()}
    assert {image.format for image in shown.values()} == {"JPEG"}
    assert shown["turned"].size == (32, 38), "EXIF's orientation was not applied"
    assert shown["deep-grey"].convert("L").getextrema()[0] < 30, "16 bits were cut off"
    assert shown["gif"].convert("RGB").getpixel((10, 10))[0] > 200, "not the first frame"  # type: ignore[index]


def jpeg_of(colour: str) -> Image.Image:
    return Image.new("RGB", (40, 60), colour)


def _only_loopback_is_private(folder: Path) -> Path:
    """Return a folder whose sitecustomize lets the fetch take loopback for public, and nothing else that is private."""
    (folder / "sitecustomize").mkdir()
    (folder / "sitecustomize" / "sitecustomize.py").write_text(_LOOPBACK_ALLOWED)
    return folder / "sitecustomize"


_LOOPBACK_ALLOWED = """
import curation.fetch as fetch
is_public = fetch.is_public
fetch.is_public = lambda host: host == "127.0.0.1" or is_public(host)
"""


@pytest.fixture(scope="module")
def stored(make_data: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with two stored images, and the folder of their files as its parent."""
    root = tmp_path_factory.mktemp("stored")
    Image.new("RGB", (90, 60), "red").save(root / "wide.png")
    Image.new("RGB", (20, 30), "red").save(root / "small.jpg")
    images = {"wide.png": [["cat", "dog"], ["dog"], ["sofa"]], "small.jpg": ["cat"]}
    data_dir: Path = make_data(root / "data", images, num_parts=3)
    download(data_dir, CONFIG, image_root=root)
    return data_dir


def test_captions_of_an_image_are_joined_and_large_images_shrunk(stored: Path) -> None:
    samples = Samples(stored / "images")
    wide, small = (samples.position(image_key(name)) for name in ("wide.png", "small.jpg"))
    assert [caption.text for caption in samples.captions(wide)] == ["cat and dog", "dog", "sofa"]
    assert samples.captions(wide)[0].mentions == [("cat", 0, 3), ("dog", 8, 11)]
    for row, size in ((wide, (48, 32)), (small, (20, 30))):
        assert (samples.table["width"][row].as_py(), samples.table["height"][row].as_py()) == size
        assert Image.open(io.BytesIO(samples.read(row))).size == size


def test_shards_can_be_read_as_plain_webdataset(stored: Path) -> None:
    with tarfile.open(stored / "images" / "00000.tar") as tar:
        content = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
    assert sorted(name.split(".")[1] for name in content) == ["jpg", "jpg", "json", "json", "txt", "txt"]
    texts = {content[name].decode() for name in content if name.endswith(".txt")}
    assert texts == {"cat", "cat and dog\ndog\nsofa"}
    keys = {json.loads(content[name])["image_key"] for name in content if name.endswith(".json")}
    assert keys == {image_key("wide.png"), image_key("small.jpg")}


def test_a_finished_download_returns_at_once(stored: Path) -> None:
    assert download(stored, CONFIG, image_root=stored.parent) == read_manifest(stored / "images")


def test_another_shard_size_is_refused(stored: Path) -> None:
    with pytest.raises(ValueError, match=r"config.shard_size = 5000 \(now 10\); remove the folder"):
        download(stored, replace(CONFIG, shard_size=10), image_root=stored.parent)


def test_another_list_is_refused(stored: Path, make_data: Any, tmp_path: Path) -> None:
    shutil.copytree(stored / "images", tmp_path / "images")
    make_data(tmp_path, {"wide.png": ["cat"], "more.png": ["dog"]})
    with pytest.raises(ValueError, match=r"made by stage .download. with inputs\.entities = "):
        download(tmp_path, CONFIG, image_root=stored.parent)


def test_a_lost_shard_is_named_and_fetched_again_alone(stored: Path, tmp_path: Path) -> None:
    data_dir = tmp_path / "copy"
    shutil.copytree(stored, data_dir)
    images_dir = data_dir / "images"
    (images_dir / "00000.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"00000.tar: not there; .* `ovseg download --verify`"):
        Samples(images_dir).read(0)
    download(data_dir, CONFIG, image_root=stored.parent)
    expected, found = Samples(stored / "images"), Samples(images_dir)
    assert [found.read(row) for row in range(2)] == [expected.read(row) for row in range(2)]


def test_images_named_by_path_are_the_same_from_a_folder_and_from_an_address(
    make_data: Any, stored: Path, tmp_path: Path
) -> None:
    images = {"wide.png": [["cat", "dog"], ["dog"], ["sofa"]], "small.jpg": ["cat"]}
    data_dir = make_data(tmp_path / "data", images, num_parts=3)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serve_folder(stored.parent, port) as address:
        download(data_dir, CONFIG, image_root=f"{address}/")
    by_address, by_folder = Samples(data_dir / "images"), Samples(stored / "images")
    assert by_address.keys.tolist() == by_folder.keys.tolist()
    assert [by_address.read(row) for row in range(2)] == [by_folder.read(row) for row in range(2)]


def test_killed_download_resumes_to_the_same_keys_and_digests(web: Any, make_data: Any, tmp_path: Path) -> None:
    images = {f"{web.url}/paced/{number}": ["cat"] for number in range(90)} | {f"{web.url}/missing/1": ["cat"]}
    whole, killed = make_data(tmp_path / "whole", images), make_data(tmp_path / "killed", images)
    process = subprocess.Popen([sys.executable, "-c", _RUN, str(killed)], cwd=ROOT)
    first_marker = _wait_for(lambda: next(iter((killed / "images").glob("*.tar.json")), None))
    written_ns = first_marker.stat().st_mtime_ns
    workers = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert workers
    _wait_for(lambda: not any(map(_is_alive, workers)))
    assert not (killed / "images" / "manifest.json").exists()

    manifest = download(killed, PACED)
    download(whole, PACED)

    assert first_marker.stat().st_mtime_ns == written_ns
    assert _digests(killed) == _digests(whole)
    assert Samples(killed / "images").digest == Samples(whole / "images").digest
    assert (manifest.rows, manifest.counts) == (90, {"http_404": 1})
    assert not (killed / "images" / ".scratch").exists()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ten_kills_of_the_whole_tree_change_no_key_and_no_digest(web: Any, make_data: Any, tmp_path: Path) -> None:
    images = {f"{web.url}/{'missing' if n % 97 == 0 else 'paced'}/{n}": ["cat"] for n in range(5000)}
    whole, killed = make_data(tmp_path / "whole", images), make_data(tmp_path / "killed", images)
    moments = random.Random(0)
    for _ in range(10):
        process = subprocess.Popen([sys.executable, "-c", _RUN_MANY, str(killed)], cwd=ROOT)
        # Counted in requests, moments are spread over the run on a busy machine, too.
        asked = web.asked.total() + moments.randrange(700)
        _wait_for(lambda asked=asked: web.asked.total() >= asked)
        time.sleep(moments.uniform(0, 1))
        tree = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        for each in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                each.kill()
        process.wait()
        assert not (killed / "images" / "manifest.json").exists(), "the run ended before it could be killed"
        _wait_for(lambda tree=tree: not any(_is_alive(each.pid) for each in tree))
        _wait_for(lambda: not _processes_that_name(killed))
    assert list((killed / "images").glob("*.tar.json")), "no kill came after the first shard"

    for data_dir in (killed, whole):
        subprocess.run([sys.executable, "-c", _RUN_MANY, str(data_dir)], cwd=ROOT, check=True)

    assert _digests(killed) == _digests(whole)
    assert len(_digests(whole)) == 5000
    assert Samples(killed / "images").keys.tolist() == Samples(whole / "images").keys.tolist()
    assert Samples(killed / "images").digest == Samples(whole / "images").digest
    assert _failures(killed) == _failures(whole)
    assert not _processes_that_name(killed)


def _processes_that_name(data_dir: Path) -> list[int]:
    """Return the processes that work for a folder: it stands in their command or among their open files."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_bytes().decode(errors="replace")
            files = [str(file.readlink()) for file in (path / "fd").iterdir()]
            if int(path.name) != os.getpid() and any(str(data_dir) in text for text in (command, *files)):
                found.append(int(path.name))
    return found


_RUN = f"""
import sys
from pathlib import Path
from curation.download import DownloadConfig, download
download(Path(sys.argv[1]), {PACED!r})
"""
_RUN_MANY = _RUN.replace(repr(PACED), repr(replace(PACED, shard_size=100, threads=8, per_host=8, processes=2)))


def test_paths_without_their_folder_are_refused(make_data: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="images are named by path; name their folder or address with --image-root"):
        download(make_data(tmp_path, {"red.jpg": ["cat"]}), CONFIG)


def test_a_download_that_stores_nothing_stops(make_data: Any, tmp_path: Path) -> None:
    make_data(tmp_path, {"red.jpg": ["cat"]})
    with pytest.raises(
        CollapsedError, match=r"none of 1 images could be stored \(\{'no_file': 1\}\); failures.parquet there"
    ):
        download(tmp_path, CONFIG, image_root=tmp_path)


def test_copies_are_marked_and_images_of_a_benchmark_are_left_out(make_data: Any, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (3, 12, 16, 3), np.uint8)
    cat, dog, boat = (Image.fromarray(each).resize((160, 120), Image.Resampling.BICUBIC) for each in noise)
    root, benchmark = tmp_path / "photos", tmp_path / "benchmark"
    root.mkdir()
    (benchmark / "val").mkdir(parents=True)
    cat.save(root / "cat.png")
    cat.resize((90, 68)).save(root / "copy.jpg", quality=80)
    dog.save(root / "dog.png")
    boat.save(root / "boat.png")
    boat.resize((320, 240)).save(benchmark / "val" / "b1.jpg", quality=90)
    (tmp_path / "hashes.txt").write_text(f"{perceptual_hash(dog):016x} the dog of a benchmark\n")
    images = {name: ["cat"] for name in ("cat.png", "copy.jpg", "dog.png", "boat.png")}
    data_dir = make_data(tmp_path / "data", images)
    config = replace(CONFIG, benchmarks=(str(benchmark), str(tmp_path / "hashes.txt")))

    manifest = download(data_dir, config, image_root=root)

    keys = sorted(image_key(name) for name in ("cat.png", "copy.jpg"))
    duplicates = pq.read_table(data_dir / "images" / "duplicates.parquet").to_pylist()
    assert duplicates == [{"key": key, "group": keys[0]} for key in keys]
    assert Samples(data_dir / "images").keys.tolist() == keys
    failures = _failures(data_dir)
    details = {name: row["detail"] for name, row in failures.items()}
    near = {"boat.png": "nearly equals benchmark/val/b1.jpg", "dog.png": "nearly equals the dog of a benchmark"}
    assert details == near
    assert manifest.counts == {"benchmark_image": 2}
    card = (data_dir / "images" / "datacard.md").read_text()
    assert "| benchmark_image | 2 |" in card
    assert "| images with a near-duplicate | 2 |" in card
    picture = ElementTree.parse(data_dir / "images" / "datacard.svg")
    assert "stored" in {text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")}


def test_a_collapsed_download_stops_and_its_shards_do_not_count(web: Any, make_data: Any, tmp_path: Path) -> None:
    images = {f"{web.url}/{'image' if number % 20 == 0 else 'missing'}/{number}": ["cat"] for number in range(60)}
    data_dir = make_data(tmp_path, images)
    config = replace(CONFIG, shard_size=20, gate_images=40, rounds=0)
    with pytest.raises(
        ConnectionError, match=r"only \d of the last 40 images could be stored .*: http_404 3\d; these 2 sh"
    ):
        download(data_dir, config)
    assert not list((data_dir / "images").glob("*.tar.json"))
    assert download(data_dir, replace(config, min_success_rate=0)).counts == {"http_404": 57}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"threads": 0}, "threads = 0: expected at least 1"),
        ({"retries": -1}, "retries = -1: expected 0 or more"),
        ({"timeout_s": 0.0}, "timeout_s = 0.0: expected seconds, more than 0"),
        ({"jpeg_quality": 101}, "jpeg_quality = 101: expected 1 to 100"),
        ({"duplicate_bits": 7}, "duplicate_bits = 7: expected 0 to 6"),
        ({"min_success_rate": 2.0}, "min_success_rate = 2.0: expected 0 to 1"),
        ({"user_agent": " "}, "user_agent is empty: say who fetches"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        DownloadConfig(**settings)


def _wait_for(condition: Any, timeout_s: float = 120) -> Any:
    end = time.monotonic() + timeout_s
    while not (result := condition()):
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)
    return result


def _is_alive(pid: int) -> bool:
    try:
        # An ended process that nobody has waited for is a zombie, Z.
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
