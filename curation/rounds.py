"""All shards of a download: a first round over every image, then rounds over those that failed for a transient cause.

What a further round fetches is kept in round-01.parquet, round-02.parquet, ..., so that a run that was killed, or lost
a shard, cuts the same shards again. Shards are numbered on from round to round.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.fetch import is_transient
from curation.gate import CollapsedError, SuccessGate, probe_names, reason_of_collapse
from curation.gather import Accounts, hosts, late_images, map_accounts
from curation.image_list import IMAGES
from curation.images import shard_name
from curation.manifest import Part, finished_part, mark_part, replacing, withdraw_part
from curation.progress import Progress
from curation.shard import SCRATCH, ShardTask, account_name, download_shard
from curation.workers import Workers

if TYPE_CHECKING:
    from curation.download import DownloadConfig

logger = logging.getLogger(__name__)

# Requests end at the shard's deadline; what was fetched by then is resized and verified after it.
_RESIZING_S = 600.0


RunShards = Callable[[Iterable[ShardTask]], Generator[tuple[int, Part], None, None]]
"""Fetches shards and yields the number and the part of each, in the order in which they end."""


class Shards(Protocol):
    """Images to fetch (`curation.image_list.IMAGES`), cut into shards by key."""

    @property
    def num_shards(self) -> int:
        """Number of shards."""

    def shard(self, number: int) -> pa.Table:
        """Return the images of a shard, rows of `IMAGES`."""


class LateList:
    """The images of a further round, from its file: a row group per shard."""

    def __init__(self, path: Path) -> None:
        self._file = pq.ParquetFile(path)
        self.num_images: int = self._file.metadata.num_rows

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return int(self._file.metadata.num_row_groups)

    def shard(self, number: int) -> pa.Table:
        """Return the images of a shard, sorted by key."""
        return self._file.read_row_group(number).cast(IMAGES)


def fetch_rounds(
    images: Shards,
    images_dir: Path,
    config: DownloadConfig,
    image_root: str | None,
    run_shards: RunShards | None = None,
) -> tuple[list[Part], list[Accounts]]:
    """Fetch what is not there yet; return the shards of all rounds and their accounts, round by round.

    `run_shards` sends the shards elsewhere, where `fetch_shard` fetches each; None fetches them here.

    Raises: CollapsedError when names do not resolve, or the latest shards yield too little.
    """
    scratch_dir = images_dir / SCRATCH
    fetched: list[Part] = []
    rounds: list[Accounts] = []
    shards = images
    with _workers(config, scratch_dir) as workers:  # starts nothing by itself
        for number in range(config.rounds + 1):
            if number:
                late = _late_list(shards, rounds[-1], images_dir / f"round-{number:02d}.parquet", config.shard_size)
                if late is None:
                    break
                shards = late
            fetch = _Round(number, shards, len(fetched), images_dir, config, image_root)
            if number and fetch.waiting:
                _pause(number, shards.num_shards, rounds[-1], config)
            parts = fetch.run(run_shards or workers.run)
            fetched += parts
            paths = [images_dir / account_name(part.name) for part in parts]
            rounds.append(map_accounts(paths, scratch_dir / f"round-{number:02d}.arrow"))
    return fetched, rounds


def fetch_shard(task: ShardTask) -> tuple[int, Part]:
    """Fetch one shard, in a worker process of its own with its deadline, and return its number and part."""
    with _workers(task.config, task.images_dir / SCRATCH) as workers:
        result: tuple[int, Part] = next(workers.run([task]))
    return result


def _workers(config: DownloadConfig, scratch_dir: Path) -> Workers:
    target = f"{download_shard.__module__}.{download_shard.__name__}"
    return Workers(target, config.processes, config.shard_deadline_s + _RESIZING_S, scratch_dir / "log")


class _Round:
    """The shards of one round: `first` is the number of its first one among the shards of all rounds."""

    def __init__(
        self,
        number: int,
        shards: Shards,
        first: int,
        images_dir: Path,
        config: DownloadConfig,
        image_root: str | None,
    ) -> None:
        self.number, self.shards, self.first = number, shards, first
        self.images_dir, self.config, self.image_root = images_dir, config, image_root
        found = {each: finished_part(images_dir, shard_name(first + each)) for each in range(shards.num_shards)}
        self.parts = {each: part for each, part in found.items() if part}
        self.waiting = [each for each, part in found.items() if not part]
        if self.parts and self.waiting:
            logger.info("download: %d of %d shards are there already", len(self.parts), len(found))

    def run(self, run_shards: RunShards) -> list[Part]:
        """Fetch the waiting shards and return all of the round."""
        config = self.config
        is_first = self.number == 0
        if is_first and self.waiting:
            names = hosts(self.shards.shard(self.waiting[0])).drop_null().unique().to_pylist()
            probe_names(names, config.min_success_rate)
        gate = SuccessGate(config.min_success_rate, config.gate_images)
        step = "download" if is_first else f"download, round {self.number + 1}"
        progress = Progress(step, self.shards.num_shards, begun_at=len(self.parts))
        with progress, closing(run_shards(self._tasks())) as done:
            for number, part in done:
                self.parts[number - self.first] = part
                read = part.rows + sum(part.counts.values())
                progress.part(f"shard {number:05d}", done=1, read=read, kept=part.rows, drops=part.counts)
                if is_first and (collapsed := gate.collapsed(part)):
                    for each in collapsed:
                        withdraw_part(self.images_dir, each.name)
                    reason = reason_of_collapse(collapsed, config.min_success_rate)
                    raise CollapsedError(f"{self.images_dir}: {reason}")
        return [self.parts[each] for each in sorted(self.parts)]

    def _tasks(self) -> Iterator[ShardTask]:
        for each in self.waiting:
            number = self.first + each
            path = self.images_dir / SCRATCH / f"{number:05d}.arrow"
            table = self.shards.shard(each)
            with pa.ipc.new_file(str(path), table.schema) as writer:
                writer.write_table(table)
            yield ShardTask(number, path, self.images_dir, self.image_root, self.config)


def _late_list(shards: Shards, last_round: Accounts, path: Path, shard_size: int) -> LateList | None:
    """Return the images that are worth another round, None without any; a list that was made before stays."""
    if not finished_part(path.parent, path.name):
        is_late = _is_late(last_round)
        if not is_late.any():
            return None
        tables = late_images((shards.shard(number) for number in range(shards.num_shards)), last_round, is_late)
        with replacing(path) as temporary, pq.ParquetWriter(temporary, IMAGES, compression="zstd") as writer:
            rest = IMAGES.empty_table()
            for table in tables:
                rest = pa.concat_tables([rest, table])
                while len(rest) >= shard_size:
                    writer.write_table(rest.slice(0, shard_size), row_group_size=shard_size)
                    rest = rest.slice(shard_size)
            if len(rest):
                writer.write_table(rest, row_group_size=shard_size)
        mark_part(path.parent, path.name, int(is_late.sum()))
    return LateList(path)


def _is_late(accounts: Accounts) -> NDArray[np.bool_]:
    causes = accounts.table["cause"]
    transient = [cause for cause in causes.drop_null().unique().to_pylist() if is_transient(cause)]
    marks: NDArray[np.bool_] = pc.is_in(causes, value_set=pa.array(transient, pa.string())).to_numpy()
    return marks


def _pause(number: int, num_shards: int, last_round: Accounts, config: DownloadConfig) -> None:
    asked_s = pc.max(last_round.table["retry_after_s"]).as_py() or 0.0
    pause_s = max(config.round_pause_s, min(asked_s, config.max_pause_s))
    logger.info(
        "download: round %d over images that failed for a transient cause, %d shards, begins in %.0f s",
        *(number + 1, num_shards, pause_s),
    )
    time.sleep(pause_s)
