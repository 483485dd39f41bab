from __future__ import annotations

import os
import pickle
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.feather
import pytest

from curation import images
from curation.images import Partners, Samples, shard_name, write_partners, write_samples
from curation.scenes_server import serve_folder
from curation.schema import SAMPLES

ROOT = Path(__file__).resolve().parents[2]
KEYS = [3, 5, 8, 13]
CONTENT = [b"three", b"five", b"eight", b"thirteen"]


@pytest.fixture
def images_dir(tmp_path: Path) -> Path:
    """Return a folder of two shards with two images each, written as two tables."""
    tables = []
    for shard in range(2):
        pair = slice(2 * shard, 2 * shard + 2)
        lengths = [len(content) for content in CONTENT[pair]]
        (tmp_path / shard_name(shard)).write_bytes(b"head" + b"".join(CONTENT[pair]))
        rows = [
            {"key": key, "shard": shard, "offset": offset, "length": length, "width": 1, "height": 1, "captions": texts}
            for key, offset, length in zip(KEYS[pair], (4, 4 + lengths[0]), lengths, strict=True)
            for texts in [[{"text": f"a cat {key}", "mentions": [{"entity": "cat", "start": 2, "end": 5}]}]]
        ]
        tables.append(pa.Table.from_pylist(rows, schema=SAMPLES))
    write_samples(tmp_path, tables, "digest-of-samples")
    return tmp_path


def test_images_and_captions_are_read_by_row(images_dir: Path) -> None:
    samples = Samples(images_dir)
    assert len(samples) == 4
    assert samples.keys.tolist() == KEYS
    assert [samples.position(key) for key in KEYS] == [0, 1, 2, 3]
    assert [samples.read(row) for row in range(4)] == CONTENT
    assert samples.captions(2) == [("a cat 8", [("cat", 2, 5)], None)]
    assert samples.captions(2)[0].mentions[0].entity == "cat"
    assert samples.digest == "digest-of-samples"


def test_images_stored_by_another_version_are_refused_with_the_way_out(images_dir: Path) -> None:
    pa.feather.write_feather(
        Samples(images_dir).table.drop_columns(["path"]), images_dir / "samples.arrow", "uncompressed"
    )
    with pytest.raises(
        ValueError,
        match=r"samples.arrow: written by another version, with columns key, shard, offset, .* expected key, shard, "
        r"path, offset, .*; remove images/ and run its stage again$",
    ):
        Samples(images_dir)


@pytest.mark.parametrize("key", [0, 4, 14])
def test_an_absent_key_is_named(images_dir: Path, key: int) -> None:
    with pytest.raises(KeyError, match=f"key {key}: no such image in"):
        Samples(images_dir).position(key)


def test_samples_of_several_files_read_as_one(images_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Samples(images_dir)
    monkeypatch.setattr(images, "MAX_FILE_BYTES", 1)
    write_samples(images_dir, [whole.table.slice(row, 1) for row in range(4)], "other")
    names = sorted(path.name for path in images_dir.glob("samples*"))
    assert names == ["samples-00001.arrow", "samples-00002.arrow", "samples-00003.arrow", "samples.arrow"]
    assert Samples(images_dir).table.equals(whole.table)


def test_readers_work_in_threads_and_other_processes(images_dir: Path) -> None:
    samples = Samples(images_dir)
    assert samples.keys.tolist() == KEYS
    rows = list(range(4)) * 50
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(samples.read, rows)) == [CONTENT[row] for row in rows]
    assert pickle.loads(pickle.dumps(samples)).read(3) == CONTENT[3]
    receiver, sender = get_context("fork").Pipe(duplex=False)
    process = get_context("fork").Process(target=lambda: sender.send([samples.read(row) for row in range(4)]))
    process.start()
    assert receiver.recv() == CONTENT
    process.join()


def test_images_are_read_by_key_from_any_address(
    images_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))
    memory = fsspec.filesystem("memory")
    address = f"memory://bucket-{tmp_path.name}/images"
    memory.put(f"{images_dir}/", f"{address}/", recursive=True)
    with serve_folder(images_dir, _free_port()) as url:
        for place in (address, f"file://{images_dir}", url):
            samples = Samples(place)
            assert [samples.read(samples.position(key)) for key in KEYS] == CONTENT
            assert samples.captions(2) == [("a cat 8", [("cat", 2, 5)], None)]
            assert pickle.loads(pickle.dumps(samples)).read(3) == CONTENT[3]
    memory.rm(f"{address}/00001.tar")
    with pytest.raises(FileNotFoundError, match=r"memory://bucket-.*00001\.tar: not there; put it back"):
        Samples(address).read(3)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


READ = """
import sys
from curation.images import Partners, Samples
samples = Samples(sys.argv[1])
row = samples.position(8)
assert samples.read(row) == b"eight" and samples.captions(row) and samples.keys[row] == 8
assert Partners(sys.argv[1], samples).of(0)[1] == ["cat", "hot dog"]
print("pandas" in sys.modules)
"""


def test_a_reading_process_does_without_pandas(images_dir: Path) -> None:
    _write_partners(images_dir, "digest-of-samples")
    command = [sys.executable, "-c", READ, str(images_dir)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert done.stdout == "False\n"


def test_reading_leaves_no_file_open(images_dir: Path) -> None:
    samples = Samples(images_dir)
    before = len(os.listdir("/proc/self/fd"))  # noqa: PTH208
    for row in range(4):
        samples.read(row)
    assert len(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_a_shard_that_is_gone_or_cut_is_named_with_the_way_out(images_dir: Path) -> None:
    samples = Samples(images_dir)
    (images_dir / "00001.tar").write_bytes(b"head")
    with pytest.raises(
        ValueError,
        match=r"00001\.tar: image 8 ends at byte 9, the file at byte 4; put it back, or run `ovseg download -",
    ):
        samples.read(2)
    (images_dir / "00001.tar").unlink()
    with pytest.raises(FileNotFoundError, match=r"00001\.tar: not there; put it back, or run `ovseg"):
        samples.read(3)
    assert samples.read(0) == CONTENT[0]


def test_a_folder_without_samples_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"samples\.arrow: not there; run the download"):
        Samples(tmp_path)
    (tmp_path / "samples.arrow").write_bytes(b"ARROW1")
    with pytest.raises(ValueError, match=r"samples\.arrow: not a whole Arrow file .* remove it"):
        Samples(tmp_path)


def _write_partners(folder: Path, digest: str) -> None:
    chunks = [
        (np.array([[1, 2], [-1, -1]], np.int32), np.array([[0, 1], [-1, -1]], np.int32)),
        (np.array([[3, 3], [2, 0]], np.int32), np.array([[1, 1], [0, 0]], np.int32)),
    ]
    write_partners(folder, chunks, ["cat", "hot dog"], digest)


def test_partners_are_rows_with_the_shared_entity(images_dir: Path) -> None:
    _write_partners(images_dir, "digest-of-samples")
    partners: Any = pickle.loads(pickle.dumps(Partners(images_dir, Samples(images_dir))))
    found = [(rows.tolist(), entities) for rows, entities in map(partners.of, range(4))]
    expected = [([1, 2], ["cat", "hot dog"]), ([], []), ([3, 3], ["hot dog"] * 2), ([2, 0], ["cat"] * 2)]
    assert found == expected
    assert len(partners) == 4


def test_partners_of_other_samples_are_refused(images_dir: Path) -> None:
    samples = Samples(images_dir)
    with pytest.raises(FileNotFoundError, match=r"partners\.arrow: not there; run the pairs stage"):
        Partners(images_dir, samples)
    _write_partners(images_dir, "older")
    with pytest.raises(ValueError, match="drawn for samples with digest older, found digest-of-samples"):
        Partners(images_dir, samples)
