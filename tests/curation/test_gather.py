from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.gather import Accounts, hosts, map_accounts, outcomes, stored_hashes
from curation.image_list import IMAGES
from curation.verify import ACCOUNT


def _accounts(folder: Path, *shards: list[dict[str, Any]]) -> Accounts:
    paths = [folder / f"{len(list(folder.iterdir()))}-{number}.parquet" for number in range(len(shards))]
    for path, rows in zip(paths, shards, strict=True):
        pq.write_table(pa.Table.from_pylist(rows, schema=ACCOUNT), path)
    return map_accounts(paths, folder / f"{len(list(folder.iterdir()))}.arrow")


def _stored(key: int, shard: int) -> dict[str, int]:
    return {"key": key, "shard": shard, "phash": key + 100}


def _failed(key: int, cause: str) -> dict[str, Any]:
    return {"key": key, "cause": cause}


def _images(*keys: int) -> pa.Table:
    return pa.Table.from_pylist([{"key": key, "captions": []} for key in keys], schema=IMAGES)


def test_an_image_counts_as_stored_where_it_is_else_with_its_last_cause(tmp_path: Path) -> None:
    rounds = [
        _accounts(tmp_path, [_stored(1, 0), _failed(2, "timeout")], [_failed(3, "dns"), _failed(4, "http_404")]),
        _accounts(tmp_path, [_stored(2, 2), _failed(3, "timeout")]),
        # Its first shard was fetched again, after a later one had stored the image, too.
        _accounts(tmp_path, [_failed(3, "host_down"), _stored(1, 3)]),
    ]
    found = [(row["key"], row["shard"], row["cause"], row["rounds"]) for row in _rows(rounds, 1, 2, 3, 4)]
    assert found == [(1, 3, None, 2), (2, 2, None, 2), (3, None, "host_down", 3), (4, None, "http_404", 1)]
    assert [row["key"] for row in _rows(rounds, 2, 3)] == [2, 3]
    keys, hashes = stored_hashes(rounds)
    assert (keys.tolist(), hashes.tolist()) == ([1, 2], [101, 102])


def _rows(rounds: list[Accounts], *keys: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = outcomes(_images(*keys), rounds).to_pylist()
    return rows


def test_an_image_without_an_account_is_a_defect(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="1 images from key 1 on have no account"):
        outcomes(_images(1, 2), [_accounts(tmp_path, [_stored(1, 0)])])


def test_hosts_are_found_in_addresses_of_every_kind() -> None:
    expected = {
        "http://a.example/1.jpg": "a.example",
        "https://A.Example:8080?x": "a.example",
        "http://me:secret@b.example/@": "b.example",
        "http://[2001:db8::1]:80/": "[2001:db8::1]",
        "http:///nowhere": None,
        "no address": None,
    }
    table = pa.table({"url": pa.chunked_array([[*expected, None]])})
    assert hosts(table).to_pylist() == [*expected.values(), None]
