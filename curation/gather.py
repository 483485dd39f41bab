"""What became of every image, gathered from the accounts of all shards of all rounds: one row per image, by key.

An image that was tried in several rounds counts as stored where it is stored, else with its last cause.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from curation.verify import ACCOUNT

_HOST = r"^[A-Za-z]+://(?:[^/@?#]*@)?(?P<host>\[[^\]]*\]|[^/:?#]*)"


@dataclass(frozen=True)
class Accounts:
    """The accounts of the shards of one round, memory-mapped."""

    table: pa.Table
    """rows (`ACCOUNT`) in the order of the shards"""
    keys: NDArray[np.int64]
    """their keys, ascending"""
    order: NDArray[np.int64]
    """row of each of `keys`"""

    def between(self, first: int, last: int) -> pa.Table:
        """Return the rows whose keys lie between two, both included, sorted by key."""
        start, end = np.searchsorted(self.keys, [first, last + 1])
        return self.table.take(pa.array(self.order[start:end]))


def map_accounts(paths: Iterable[Path], scratch: Path) -> Accounts:
    """Return the accounts in Parquet files as one memory-mapped table in the file `scratch`."""
    with pa.ipc.new_file(str(scratch), ACCOUNT) as writer:
        for path in paths:
            writer.write_table(pq.read_table(path, schema=ACCOUNT))
    table = pa.ipc.open_file(pa.memory_map(str(scratch))).read_all()
    keys = table["key"].to_numpy()
    order = np.argsort(keys, kind="stable")
    return Accounts(table, keys[order], order)


def stored_hashes(rounds: list[Accounts]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """Return the keys of all stored images, ascending, and their perceptual hashes."""
    keys, hashes = [np.empty(0, np.int64)], [np.empty(0, np.uint64)]
    for accounts in rounds:
        is_stored = accounts.table["cause"].is_null().to_numpy()[accounts.order]
        keys.append(accounts.keys[is_stored])
        hashes.append(accounts.table["phash"].fill_null(0).to_numpy()[accounts.order][is_stored])
    # A shard that was fetched again may hold an image that a later round holds, too.
    unique, first = np.unique(np.concatenate(keys), return_index=True)
    return unique, np.concatenate(hashes)[first]


def outcomes(images: pa.Table, rounds: list[Accounts]) -> pa.Table:
    """Return images (`curation.image_list.IMAGES`, sorted by key) with what became of each: `ACCOUNT` and `rounds`.

    `rounds` counts the rounds in which the image was tried.

    Raises: RuntimeError when an image has no account.
    """
    wanted = images["key"].to_numpy()
    found = [accounts.between(int(wanted[0]), int(wanted[-1])) for accounts in rounds]
    rows = pa.concat_tables(found).combine_chunks()
    number = np.repeat(np.arange(len(found)), [len(table) for table in found])
    keys, is_failed = rows["key"].to_numpy(), rows["cause"].is_valid().to_numpy()
    order = np.lexsort((-number, is_failed, keys))
    unique, first, times = np.unique(keys[order], return_index=True, return_counts=True)
    if not np.array_equal(unique, wanted):
        raise RuntimeError(
            f"{len(np.setxor1d(unique, wanted))} images from key {wanted[0]} on have no account: a defect"
        )
    chosen = rows.take(pa.array(order[first])).drop_columns("key")
    for name in chosen.column_names:
        images = images.append_column(ACCOUNT.field(name), chosen[name])
    return images.append_column("rounds", pa.array(times, pa.int32()))


def addresses(images: pa.Table) -> pa.ChunkedArray:
    """Return the address of each image: its URL, or its path."""
    return pc.coalesce(images["url"], images["image"])


def hosts(images: pa.Table) -> pa.ChunkedArray:
    """Return the host of each image's URL in lower case, null for one that is named by path or has none."""
    host = pc.struct_field(pc.extract_regex(images["url"], _HOST), "host")
    return pc.utf8_lower(pc.if_else(pc.equal(host, ""), None, host))


def excluded(outcome: pa.Table, keys: NDArray[np.int64], cause: str) -> pa.Table:
    """Return outcomes in which the images of `keys` count as failed for a cause of ours."""
    is_out = pa.array(np.isin(outcome["key"].to_numpy(), keys))
    causes = pc.if_else(is_out, cause, outcome["cause"])
    return outcome.set_column(outcome.schema.get_field_index("cause"), ACCOUNT.field("cause"), causes)


def late_images(images: Iterator[pa.Table], last_round: Accounts, is_late: NDArray[np.bool_]) -> Iterator[pa.Table]:
    """Yield of tables of images those whose row in the last round's accounts is marked."""
    late = last_round.keys[is_late[last_round.order]]
    for table in images:
        yield table.filter(pa.array(np.isin(table["key"].to_numpy(), late)))
