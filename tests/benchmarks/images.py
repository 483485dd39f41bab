"""Images: downloads against plain img2dataset, random reads by key, memory of readers over 4.3 million rows."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from PIL import Image

from curation.images import Samples, shard_name, write_samples
from curation.manifest import close_stage, open_stage, write_part
from curation.near_duplicates import groups_of
from curation.schema import ENTITIES, SAMPLES, image_key, part_name
from tests.benchmarks.timing import median_s, row

NUM_IMAGES = 10_000
SIZE = (640, 480)
PORT = 8654
SETTINGS = {"image_size": 256, "jpeg_quality": 95, "shard_size": 1000, "processes": 2, "threads": 32}

NUM_ROWS = 4_300_000
"""rows of CC4M"""
READS = 20_000


def download(folder: Path) -> Iterator[list[str]]:
    """Wall time of whole commands, start-up included, on the same images from one server; ours verifies, too.

    The same photographs, left in their folder. Then random reads of the stored JPEGs by key per second, warm, against a
    folder of files and a pass through webdataset.
    """
    import webdataset  # here, since it loads torch, and readers of a benchmark below import this module

    with _served(folder / "photos"):
        theirs_s = _timed(_img2dataset(folder))
        _entities(folder, "url", _address)
        ours_s = _timed(_ours(folder, "allow_private=true"))
    same = _digests(folder / "images") == _digests(folder / "plain")
    title = f"download {NUM_IMAGES:,} images of 640 x 480, verified, {'the same bytes' if same else 'OTHER BYTES'}"
    yield row(title, NUM_IMAGES, ours_s, "images", "plain img2dataset", theirs_s)
    _entities(folder / "in-place", "image", _name)
    in_place_s = _timed([*_ours(folder / "in-place", "in_place=true"), f"--image-root={folder / 'photos'}"])
    yield row(f"{NUM_IMAGES:,} images of 640 x 480 left in their folder, verified", NUM_IMAGES, in_place_s, "images")
    samples = Samples(folder / "images")
    keys = np.random.default_rng(0).permutation(samples.keys).tolist()
    (folder / "files").mkdir()
    for key in keys:
        (folder / "files" / f"{key}.jpg").write_bytes(samples.read(samples.position(key)))
    shards = [str(path) for path in sorted((folder / "images").glob("*.tar"))]

    def through_webdataset() -> int:
        stream = webdataset.WebDataset(shards, shardshuffle=False, empty_check=False).shuffle(1000)
        return sum(len(sample["jpg"]) for sample in stream)

    ours_s, files_s, stream_s = median_s(
        lambda: sum(len(samples.read(samples.position(key))) for key in keys),
        lambda: sum(len((folder / "files" / f"{key}.jpg").read_bytes()) for key in keys),
        through_webdataset,
        rounds=3,
    )
    title = "random reads by key from samples.arrow, warm"
    yield row(title, len(keys), ours_s, "images", "folder of JPEGs", files_s)
    yield row(title, len(keys), ours_s, "images", "webdataset, in order of its shards", stream_s)


def memory(folder: Path) -> Iterator[list[str]]:
    """Memory of reader processes over the rows of CC4M, after the first and after 20,000 random reads."""
    for num_rows in (NUM_ROWS // 10, NUM_ROWS):
        _many_samples(folder / str(num_rows), num_rows)
        for num_readers in (1, 8):
            first, last = _readers(folder / str(num_rows), num_readers)
            figure = f"{first:.0f} MB private each at first, {last:.0f} MB after {READS:,} reads"
            yield [f"{num_readers} readers over {num_rows:,} rows", figure, "", ""]


def near_duplicates(folder: Path) -> Iterator[list[str]]:
    """Groups of near-duplicates among as many perceptual hashes as CC4M has images."""
    del folder
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 2**64, NUM_ROWS, np.uint64, endpoint=False)
    hashes[: NUM_ROWS // 20] = hashes[NUM_ROWS // 20 : NUM_ROWS // 10] ^ np.uint64(0b101)
    begun = time.perf_counter()
    groups = groups_of(np.arange(NUM_ROWS), hashes, bits=4)
    title = f"near-duplicates of {NUM_ROWS:,} hashes, {len(groups):,} found"
    yield row(title, NUM_ROWS, time.perf_counter() - begun, "images")


@contextmanager
def _served(photos: Path) -> Iterator[None]:
    """Make the photographs and serve them from a process of their own."""
    photos.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(NUM_IMAGES):
        coarse = Image.fromarray(rng.integers(0, 255, (15, 20, 3), np.uint8)).resize(SIZE, Image.Resampling.BICUBIC)
        coarse.save(photos / f"{number:05d}.jpg", quality=90)
    code = "from curation.scenes_server import serve_folder; import sys; from pathlib import Path\n"
    code += "with serve_folder(Path(sys.argv[1]), int(sys.argv[2])): print('ready', flush=True); sys.stdin.read()"
    server = subprocess.Popen(
        [sys.executable, "-c", code, str(photos), str(PORT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert server.stdout
        server.stdout.readline()
        yield
    finally:
        server.kill()
        server.wait()


def _name(number: int) -> str:
    return f"{number:05d}.jpg"


def _address(number: int) -> str:
    return f"http://127.0.0.1:{PORT}/{_name(number)}"


def _img2dataset(folder: Path) -> list[str]:
    rows = [{"url": _address(number), "caption": "a cat"} for number in range(NUM_IMAGES)]
    pq.write_table(pa.Table.from_pylist(rows), folder / "list.parquet")
    options = {
        **{"url_list": folder / "list.parquet", "output_folder": folder / "plain", "input_format": "parquet"},
        **{"output_format": "webdataset", "url_col": "url", "caption_col": "caption", "resize_mode": "keep_ratio"},
        **{"resize_only_if_bigger": "True", "image_size": SETTINGS["image_size"], "enable_wandb": "False"},
        **{"encode_quality": SETTINGS["jpeg_quality"], "number_sample_per_shard": SETTINGS["shard_size"]},
        **{"processes_count": SETTINGS["processes"], "thread_count": SETTINGS["threads"], "extract_exif": "False"},
        **{"compute_hash": "None"},
    }
    return [
        str(Path(sys.executable).with_name("img2dataset")),
        *(f"--{name}={value}" for name, value in options.items()),
    ]


def _ours(folder: Path, setting: str) -> list[str]:
    settings = [f"--set={name}={value}" for name, value in SETTINGS.items()]
    return [sys.executable, "-m", "flows.cli", "download", str(folder), *settings, f"--set={setting}"]


def _timed(command: list[str]) -> float:
    begun = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - begun


def _entities(folder: Path, column: str, address_of: Callable[[int], str]) -> None:
    rows = [
        {
            **{"key": image_key(address), "caption_id": 0, column: address, "caption": "a cat"},
            **{"entities": ["cat"], "mentions": [{"entity": "cat", "start": 2, "end": 5}]},
        }
        for address in map(address_of, range(NUM_IMAGES))
    ]
    open_stage(folder / "entities", "parse", {}, {})
    close_stage(
        folder / "entities", [write_part(folder / "entities", part_name(0), pa.Table.from_pylist(rows, ENTITIES))]
    )


def _digests(folder: Path) -> dict[str, str]:
    """Return address -> digest of the stored JPEG."""
    digests = {}
    for path in folder.glob("*.tar"):
        with tarfile.open(path) as tar:
            files: dict[str, Any] = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name, content in files.items():
            if name.endswith(".json"):
                image = files[name.replace(".json", ".jpg")]
                digests[json.load(io.BytesIO(content))["url"]] = xxhash.xxh3_128_hexdigest(image)
    return digests


def _many_samples(images_dir: Path, num_rows: int) -> None:
    images_dir.mkdir()
    with (images_dir / shard_name(0)).open("wb") as file:
        file.truncate(1 << 30)  # sparse: only the reads count here
    rng = np.random.default_rng(0)
    keys = np.sort(rng.choice(1 << 62, num_rows + num_rows // 100))[:num_rows]
    mention = {"entity": "cat", "start": 30, "end": 33}

    def tables() -> Iterator[pa.Table]:
        for first in range(0, num_rows, 5000):
            part = keys[first : first + 5000]
            count = len(part)
            columns = {
                "key": part,
                "shard": np.zeros(count, np.int32),
                "path": pa.nulls(count, pa.string()),
                "offset": rng.integers(0, 1 << 29, count),
                "length": np.full(count, 20_000, np.int32),
                "width": np.full(count, 341, np.int32),
                "height": np.full(count, 256, np.int32),
                "captions": [
                    [{"text": f"caption number {key} with a few words and a cat", "mentions": [mention]}]
                    for key in part
                ],
            }
            yield pa.table(columns, schema=SAMPLES)

    write_samples(images_dir, tables(), "synthetic")


def _readers(images_dir: Path, num_readers: int) -> tuple[float, float]:
    """Return the mean private memory of readers in MB, after their first read and after `READS` random ones."""
    context = get_context("spawn")
    ends: list[Connection] = []
    processes = []
    for seed in range(num_readers):
        ours, theirs = context.Pipe()
        process = context.Process(target=_reader, args=(images_dir, seed, theirs))
        process.start()
        ends.append(ours)
        processes.append(process)
    figures = np.array([end.recv() for end in ends])
    for process in processes:
        process.join()
    first, last = figures.mean(axis=0)
    return float(first), float(last)


def _reader(images_dir: Path, seed: int, end: Connection) -> None:
    samples = Samples(images_dir)
    rng = np.random.default_rng(seed)
    figures = []
    for reads in (1, READS):
        for position in rng.integers(len(samples), size=reads).tolist():
            key = samples.table["key"][position].as_py()
            samples.read(samples.position(key))
            samples.captions(position)
        figures.append(_private_mb())
    end.send(figures)


def _private_mb() -> float:
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines[1:]}
    # Pages of the mapped table are the system's: shared by all readers, and given back when memory is short.
    return sizes["Private_Dirty"] / 1000
