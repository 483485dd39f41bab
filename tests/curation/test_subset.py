from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.captions import NOT_IN_SUBSET, IngestConfig, ingest
from curation.datacard import read_datacard
from curation.manifest import read_manifest
from curation.parse import ParseConfig, parse
from curation.schema import SUBSET
from curation.subset import Subset, write_subset

ROWS = [
    ("http://a/1", "nothing to see"),
    ("http://a/1", "a cat"),
    ("http://a/2", "a dog"),
    ("http://a/3", "an idea"),
    ("http://a/1", "two cats and a dog"),
]
CONFIG = ParseConfig(rule="exact")
"""no tagger is needed here"""


def table(path: Path, rows: list[tuple[str, str]]) -> Path:
    path.write_text("".join(f"{url}\t{caption}\n" for url, caption in rows))
    return path


@pytest.fixture
def subset_path(tmp_path: Path) -> Path:
    ingest(table(tmp_path / "table.tsv", ROWS), tmp_path / "data")
    parse(tmp_path / "data", CONFIG)
    assert write_subset(tmp_path / "data", tmp_path / "subset.parquet") == 3
    return tmp_path / "subset.parquet"


def test_a_manifest_holds_keys_and_digests_and_no_content(subset_path: Path) -> None:
    assert pq.read_schema(subset_path).equals(SUBSET, check_metadata=False)
    assert list(Subset(subset_path).tables) == ["table.tsv"]
    content = subset_path.read_bytes()
    assert b"http://" not in content
    assert b"cat" not in content


def test_the_same_data_set_is_rebuilt_from_the_table(subset_path: Path, tmp_path: Path) -> None:
    manifest = ingest(tmp_path / "table.tsv", tmp_path / "again", IngestConfig(subset=str(subset_path)))
    assert manifest.counts == {"read": 5, "kept": 3, NOT_IN_SUBSET: 2}
    parse(tmp_path / "again", CONFIG)
    for folder in ("entities", "postings"):
        assert read_manifest(tmp_path / "again" / folder).digest == read_manifest(tmp_path / "data" / folder).digest
    refused = pq.read_table(tmp_path / "again" / "captions" / "refused.parquet").to_pylist()
    assert [(row["line"], row["content"]) for row in refused] == [(1, None), (4, None)]


def test_rows_in_another_order_and_lost_rows_keep_their_ids(subset_path: Path, tmp_path: Path) -> None:
    other = table(tmp_path / "other.tsv", [ROWS[4], ROWS[0], ROWS[1]])
    ingest(other, tmp_path / "again", IngestConfig(subset=str(subset_path)))
    rows = pq.read_table(tmp_path / "again" / "captions" / "part-00000.parquet").to_pylist()
    assert [(row["caption"], row["caption_id"]) for row in rows] == [("two cats and a dog", 2), ("a cat", 1)]
    figures = read_datacard(tmp_path / "again" / "captions")["figures"]
    assert (figures["captions of the subset not found"], figures["images"]) == (1, 1)


def test_another_file_is_no_manifest(tmp_path: Path) -> None:
    pq.write_table(pa.table({"key": [1]}), tmp_path / "other.parquet")
    with pytest.raises(ValueError, match=r"other\.parquet: found columns \['key'\]; expected a manifest that `ovseg"):
        Subset(tmp_path / "other.parquet")
