"""One shard, in a worker process: fetched, resized and stored by img2dataset's classes, verified, moved into place.

img2dataset's Downloader, Resizer and WebDatasetSampleWriter do the work; only the fetch is ours (curation/fetch.py).
What img2dataset says of itself is not believed: its report is compared with the tar, every image is decoded once, and
an image without a row is a failure by name.
"""

from __future__ import annotations

import io
import logging
import os
import sys
import types
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.fetch import FetchError, WebFetcher, read_local
from curation.image_bytes import checked
from curation.images import shard_name
from curation.in_place import accounts_in_place
from curation.manifest import Part, mark_part
from curation.verify import ACCOUNT, account_of_shard

if TYPE_CHECKING:
    from curation.download import DownloadConfig

logger = logging.getLogger(__name__)

SCRATCH = ".scratch"
"""Folder inside images/ for what is not finished; removed at the start and at the end."""

Fetched = tuple[int, io.BytesIO | None, str | None]
"""What img2dataset wants of a fetch: the row's number, the file's bytes or None, the error or None."""


@dataclass(frozen=True)
class ShardTask:
    """One shard for one worker."""

    number: int
    """number of the shard"""
    images_path: Path
    """Arrow file of its images (`curation.image_list.IMAGES`)"""
    images_dir: Path
    """folder of the stage"""
    image_root: str | None
    """folder, or http(s) address, of the images that are named by path"""
    config: DownloadConfig
    """as the stage's"""

    def __str__(self) -> str:
        return f"shard {self.number:05d}"


def download_shard(task: ShardTask) -> tuple[int, Part]:
    """Fetch, resize, store and verify one shard and return its number and part; its marker is written last."""
    with pa.ipc.open_file(str(task.images_path)) as file:
        images = file.read_all()
    name = shard_name(task.number)
    with TemporaryDirectory(dir=task.images_dir / SCRATCH, prefix=f"{task.number:05d}-") as scratch:
        work_dir = Path(scratch)
        account = _account(task, images, work_dir)
        pq.write_table(account, work_dir / account_name(name), compression="zstd")
        for file_name in (f"{task.number:05d}_stats.json", f"{task.number:05d}.parquet", account_name(name), name):
            with (work_dir / file_name).open("rb") as written:
                os.fsync(written.fileno())
            (work_dir / file_name).replace(task.images_dir / file_name)
    causes = Counter(account["cause"].drop_null().to_pylist())
    return task.number, mark_part(task.images_dir, name, len(account) - causes.total(), causes)


def account_name(tar_name: str) -> str:
    """Return the file name of a shard's account (`curation.verify.ACCOUNT`), `00012.images.parquet`."""
    return f"{Path(tar_name).stem}.images.parquet"


def _account(task: ShardTask, images: pa.Table, work_dir: Path) -> pa.Table:
    """Write shard and report into `work_dir` and return the account (`ACCOUNT`) of all images, sorted by key."""
    in_place = ACCOUNT.empty_table()
    if task.config.in_place and task.image_root:
        in_place = accounts_in_place(images, Path(task.image_root), task.config)
        images = images.filter(pc.invert(pc.is_in(images["key"], in_place["key"].combine_chunks())))
    waits_s = _run_img2dataset(task, images, work_dir)
    report_path, tar_path = work_dir / f"{task.number:05d}.parquet", work_dir / shard_name(task.number)
    stored = account_of_shard(images, waits_s, report_path, tar_path, task.number, task.config.max_pixels)
    return pa.concat_tables([in_place, stored]).sort_by("key")


def _run_img2dataset(task: ShardTask, images: pa.Table, work_dir: Path) -> list[float]:
    """Write shard and report of img2dataset into `work_dir`; return the wait that a host asks for, per image."""
    downloader, resizer, writer = _img2dataset()
    config = task.config
    list_path = work_dir / "list.arrow"
    texts = ["\n".join(caption["text"] for caption in captions) for captions in images["captions"].to_pylist()]
    addresses = pc.coalesce(images["url"], images["image"])
    table = pa.table({"url": addresses, "caption": pa.array(texts, pa.string()), "image_key": images["key"]})
    with pa.ipc.new_file(str(list_path), table.schema) as file:
        file.write_table(table)
    run = downloader.Downloader(
        sample_writer_class=writer.WebDatasetSampleWriter,
        resizer=resizer.Resizer(config.image_size, "keep_ratio", True, encode_quality=config.jpeg_quality),
        thread_count=config.threads,
        save_caption=True,
        extract_exif=False,
        output_folder=str(work_dir),
        column_list=table.column_names,
        number_sample_per_shard=max(config.shard_size, 2),  # the names count the digits by its logarithm
        oom_shard_count=5,
        compute_hash=None,
        verify_hash_type=None,
        encode_format="jpg",
        # What follows it hands to the fetch, and ours has it from the config.
        timeout=config.timeout_s,
        retries=config.retries,
        user_agent_token=None,
        disallowed_header_directives=None,
    )
    web = WebFetcher(config)
    waits_s = dict.fromkeys(range(len(images)), 0.0)
    downloader.download_image_with_retry = _fetch_of(task, images["url"].is_null().to_pylist(), web, waits_s)
    try:
        run.download_shard((task.number, str(list_path)))
    finally:
        web.close()
    return list(waits_s.values())


def _fetch_of(
    task: ShardTask, is_path: list[bool], web: WebFetcher, waits_s: dict[int, float]
) -> Callable[..., Fetched]:
    """Return what takes the place of img2dataset's download_image_with_retry; it never raises.

    `waits_s` takes the wait that a host asks for, by row.
    """
    root = task.image_root or ""
    has_web_root = root.startswith(("http://", "https://"))

    def read(address: str, is_path: bool) -> bytes:
        if is_path and not has_web_root:
            return read_local(Path(root), address, task.config.max_bytes)
        return web(f"{root}/{quote(address)}" if is_path else address)

    def fetch(row: tuple[int, str], **_: Any) -> Fetched:
        index, address = row
        try:
            content = checked(read(address, is_path[index]), task.config.max_pixels)
        except FetchError as error:
            waits_s[index] = error.retry_after_s
            return index, None, str(error)
        except Exception as error:  # one odd image must not cost the shard; the cause is counted
            logger.exception("image %s", address)
            return index, None, f"unexpected: {type(error).__name__}: {error}"
        return index, io.BytesIO(content), None

    return fetch


def _img2dataset() -> tuple[Any, Any, Any]:
    """Return img2dataset's modules downloader, resizer and writer.

    Its package imports the command line with Ray, pandas and more; webdataset and albumentations import torch and
    huggingface_hub where they are installed. Together that takes eight seconds of CPU per process; two are needed.
    """
    if "img2dataset" not in sys.modules:
        spec = find_spec("img2dataset")
        if spec is None:
            raise ModuleNotFoundError("img2dataset is not installed; install the project's requirements")
        package = types.ModuleType("img2dataset")
        package.__path__ = list(spec.submodule_search_locations or [])
        sys.modules["img2dataset"] = package
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
    with _hidden("torch", "huggingface_hub"):
        from img2dataset import downloader, resizer, writer
    return downloader, resizer, writer


@contextmanager
def _hidden(*names: str) -> Iterator[None]:
    """Let imports of modules that are not loaded yet fail as if they were not installed."""
    modules: dict[str, Any] = sys.modules
    hidden = [name for name in names if name not in modules]
    modules.update(dict.fromkeys(hidden))
    try:
        yield
    finally:
        for name in hidden:
            del modules[name]
