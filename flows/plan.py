"""What a stage will take before it starts: rows, disk, network and time, from measured rates and stated assumptions.

Rates are those of docs/benchmarks.md, per core of the machine they were measured on: a plan is right within a factor of
two or so, and says what it assumes.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from curation.captions import IngestConfig
from curation.datacard import read_datacard
from curation.download import DownloadConfig
from curation.manifest import MANIFEST, read_manifest
from curation.source import PUBLISHED, TABLES, find_tables

if TYPE_CHECKING:
    from flows.config import PipelineConfig

INGEST_ROWS_PER_S = 60_000
"""measured: wall, one process"""
PARSE_ROWS_PER_S = 10_000
"""measured: one core, captions of CC12M's length"""
INDEX_ROWS_PER_S = 400_000
"""measured: postings of 4.3 million captions"""
CAPTIONS_BYTES_PER_ROW = 85
"""measured: captions/ of CC3M's validation table"""
ENTITIES_BYTES_PER_ROW = 122
"""measured: entities/ and postings/ of the same"""
STORED_BYTES_PER_PIXEL = 0.36
"""measured: 150 photographs of 320 x 240 pixels at quality 90; images are taken to be 4:3"""

NETWORK_BYTES_PER_S = 12_500_000
"""assumed: 100 Mbit/s"""
IMAGES_PER_S_PER_THREAD = 2.0
"""assumed: a host of the open web answers in half a second"""
TABLE_BYTES_PER_ROW = 218
"""CC12M's file over its rows; for tables of unknown length"""
KEPT_RATE = 0.35
"""assumed: captions that name an entity; CC3M's validation captions gave .33"""
ALIVE_RATE = 0.75
"""assumed: images that are still there"""
LOCAL_IMAGES_PER_S = 120
"""measured: one process, files of 640 x 480 pixels read, shrunk and checked"""
FETCHED_BYTES = 250_000
"""assumed: file of an image on the web"""


@dataclass(frozen=True)
class Plan:
    """What a stage takes."""

    stage: str
    """its name"""
    rows: int
    """captions or images that go in"""
    disk_bytes: float
    """bytes written that stay"""
    network_bytes: float
    """bytes received"""
    time_s: float
    """seconds on this machine's pace"""
    note: str
    """what it rests on"""


def plan_ingest(table: str, data_dir: Path, config: IngestConfig) -> Plan:
    """Return the plan of an ingest; a table on the network is not fetched for it."""
    rows, num_bytes, is_fetched, note = _size_of(table, data_dir)
    transfer_s = num_bytes / NETWORK_BYTES_PER_S if is_fetched else 0
    disk = CAPTIONS_BYTES_PER_ROW * rows + (num_bytes if is_fetched else 0)
    batches = f"and as much again, until it ends, for batches of {config.part_rows:,} lines"
    return Plan(
        "ingest", rows, disk, num_bytes * is_fetched, rows / INGEST_ROWS_PER_S + transfer_s, f"{note}; {batches}"
    )


def plan_parse(data_dir: Path, rows: int | None = None) -> Plan:
    """Return the plan of a parse, of captions/ unless the number of its rows is given."""
    rows = read_manifest(data_dir / "captions").rows if rows is None else rows
    kept = KEPT_RATE * rows
    time_s = rows / PARSE_ROWS_PER_S + kept / INDEX_ROWS_PER_S
    return Plan("parse", rows, ENTITIES_BYTES_PER_ROW * kept, 0, time_s, f"{KEPT_RATE:.0%} of captions name an entity")


def plan_download(
    data_dir: Path, config: DownloadConfig, num_images: int | None = None, image_root: str | None = None
) -> Plan:
    """Return the plan of a download, of what was parsed unless the number of images is given.

    With a folder as `image_root` all images are taken to lie there.
    """
    if num_images is None:
        folder = "captions" if config.everything else "postings"
        read_manifest(data_dir / folder)
        num_images = int(read_datacard(data_dir / folder)["figures"]["images"])
    bytes_per_image = STORED_BYTES_PER_PIXEL * config.image_size**2 * 4 / 3
    if image_root and "://" not in image_root:
        disk = 0 if config.in_place else num_images * bytes_per_image
        note = f"images of {image_root}, {'left where they lie' if config.in_place else 'copied'}"
        return Plan("download", num_images, disk, 0, num_images / (LOCAL_IMAGES_PER_S * config.processes), note)
    stored = ALIVE_RATE * num_images
    fetched = stored * FETCHED_BYTES
    time_s = max(
        fetched / NETWORK_BYTES_PER_S, num_images / (IMAGES_PER_S_PER_THREAD * config.processes * config.threads)
    )
    note = f"{ALIVE_RATE:.0%} of images are still there, {FETCHED_BYTES / 1000:.0f} kB each, over 100 Mbit/s"
    return Plan("download", num_images, stored * bytes_per_image, fetched, time_s, note)


def plan_run(config: PipelineConfig, out: Path) -> list[Plan]:
    """Return the plans of a run's stages up to the download; a stage that is finished is left out."""
    if config.scenes:
        rows = config.scenes.num_images
        data = Plan("ingest", rows, CAPTIONS_BYTES_PER_ROW * rows, 0, rows / INGEST_ROWS_PER_S, "drawn scenes")
    else:
        data = plan_ingest(config.table or "", out / "data", config.ingest)
    num_images = data.rows if config.download.everything else round(KEPT_RATE * data.rows)
    plans = {
        "captions": data,
        "entities": plan_parse(out / "data", data.rows),
        "images": plan_download(out / "data", config.download, num_images, config.image_root),
    }
    return [plan for folder, plan in plans.items() if not (out / "data" / folder / MANIFEST).exists()]


def show(plans: Iterable[Plan]) -> str:
    """Return plans as a table for people."""
    lines = [f"{'stage':<10}{'rows':>14}{'disk':>12}{'network':>12}{'time':>12}"]
    for plan in plans:
        amounts = f"{_size(plan.disk_bytes):>12}{_size(plan.network_bytes):>12}{_time(plan.time_s):>12}"
        lines.append(f"{plan.stage:<10}{plan.rows:>14,}{amounts}  {plan.note}")
    return "\n".join(lines)


def _size_of(table: str, data_dir: Path) -> tuple[int, int, bool, str]:
    """Return rows and bytes of a table, whether it is yet to be fetched, and how that is known."""
    published = None if Path(table).exists() else PUBLISHED.get(table)
    address = published.url if published else table
    if address.startswith("http"):
        there = (data_dir / TABLES / address.rsplit("/", 1)[-1]).exists()
        if published:
            return published.num_rows, published.num_bytes, not there, f"{published.title}, as published"
        if not there:
            return 0, 0, True, "its size is known once the server is asked"
    num_bytes = sum(file.size for file in find_tables(table, data_dir))
    return num_bytes // TABLE_BYTES_PER_ROW, num_bytes, False, f"rows of {TABLE_BYTES_PER_ROW} bytes, as in CC12M"


def _size(num_bytes: float) -> str:
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB")):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return "-" if num_bytes == 0 else f"{num_bytes / 1e3:.0f} kB"


def _time(seconds: float) -> str:
    if seconds >= 2 * 86_400:
        return f"{seconds / 86_400:.1f} days"
    return f"{seconds / 3600:.1f} h" if seconds >= 5400 else f"{seconds / 60:.1f} min"
