"""The end of a download: failures.parquet, samples.arrow, duplicates.parquet and the data card, from all accounts."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from curation.benchmark_images import benchmark_hashes
from curation.gate import CollapsedError
from curation.gather import Accounts, addresses, excluded, hosts, outcomes, stored_hashes
from curation.image_card import ImageCard
from curation.images import write_samples
from curation.manifest import Manifest, Part, close_stage, replacing
from curation.near_duplicates import groups_of, near_any, write_duplicates
from curation.schema import SAMPLES

if TYPE_CHECKING:
    from curation.download import DownloadConfig
    from curation.rounds import Shards

logger = logging.getLogger(__name__)

FAILURES_FILE = "failures.parquet"
FAILURES = pa.schema(
    [
        SAMPLES.field("key"),
        ("address", pa.string()),
        ("host", pa.string()),
        ("cause", pa.string()),
        ("detail", pa.string()),
        ("rounds", pa.int32()),
    ]
)
"""images/failures.parquet: one row per image that is not in samples.arrow, sorted by key. `host` is null for images
named by path; `rounds` counts the rounds in which the image was tried."""

BENCHMARK_IMAGE = "benchmark_image"
"""Cause of an image that was stored, and left out because it is nearly one of a benchmark's."""


def finish(
    images: Shards,
    images_dir: Path,
    parts: list[Part],
    rounds: list[Accounts],
    config: DownloadConfig,
    inputs_digest: str,
) -> Manifest:
    """Write all tables of a download whose shards are there, and the manifest.

    Raises: CollapsedError when nothing was stored.
    """
    keys, hashes = stored_hashes(rounds)
    leaks = _leaks(keys, hashes, config)
    is_kept = ~np.isin(keys, list(leaks))
    groups = groups_of(keys[is_kept], hashes[is_kept], config.duplicate_bits)
    card = ImageCard()
    # Keys tell which captions there are, together with the digest of the captions' folder.
    digest = xxhash.xxh3_128(inputs_digest.encode())
    left_out = np.array(sorted(leaks), np.int64)

    def all_outcomes() -> Iterator[pa.Table]:
        for number in range(images.num_shards):
            yield excluded(outcomes(images.shard(number), rounds), left_out, BENCHMARK_IMAGE)

    with replacing(images_dir / FAILURES_FILE) as path, pq.ParquetWriter(path, FAILURES, compression="zstd") as writer:
        for outcome in all_outcomes():
            stored = outcome.filter(pc.field("cause").is_null())
            digest.update(stored["key"].to_numpy().tobytes())
            writer.write_table(_failures(outcome.filter(pc.field("cause").is_valid()), leaks))
            card.add(outcome)
    if not card.stored:
        raise CollapsedError(
            f"{images_dir}: none of {card.images} images could be stored ({dict(card.causes.most_common(3))}); "
            f"{FAILURES_FILE} there has the details; look at the network and the addresses, remove the folder and run "
            f"the download again"
        )
    stored_rows = (outcome.filter(pc.field("cause").is_null()).select(SAMPLES.names) for outcome in all_outcomes())
    write_samples(images_dir, stored_rows, digest.hexdigest())
    write_duplicates(images_dir, groups)
    card.write(images_dir, parts, groups)
    return close_stage(images_dir, [replace(part, counts={}) for part in parts], card.causes)


def _leaks(keys: NDArray[np.int64], hashes: NDArray[np.uint64], config: DownloadConfig) -> dict[int, str]:
    """Return the keys of the images that nearly equal one of a benchmark's images, with the name of that one."""
    if not config.benchmarks:
        return {}
    names, others = benchmark_hashes(config.benchmarks)
    near = near_any(hashes, others, config.duplicate_bits)
    leaks = {int(keys[row]): names[near[row]] for row in np.flatnonzero(near >= 0)}
    logger.info("download: %d images nearly equal one of %s images of benchmarks", len(leaks), f"{len(names):,}")
    return leaks


def _failures(failed: pa.Table, leaks: dict[int, str]) -> pa.Table:
    details = [
        f"nearly equals {leaks[key]}" if key in leaks else detail
        for key, detail in zip(failed["key"].to_pylist(), failed["detail"].to_pylist(), strict=True)
    ]
    columns = {"key": failed["key"], "address": addresses(failed), "host": hosts(failed), "cause": failed["cause"]}
    return pa.table({**columns, "detail": pa.array(details, pa.string()), "rounds": failed["rounds"]}, schema=FAILURES)
