from __future__ import annotations

import contextlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.manifest import (
    MANIFEST,
    STARTED,
    close_stage,
    finished_part,
    open_stage,
    read_manifest,
    replacing,
    write_part,
)

CONFIG = {"size": 3, "names": ("a", "b"), "inner": {"rate": 0.5}}
INPUTS = {"captions": "abc"}


def made(folder: Path, rows: int = 3) -> Path:
    open_stage(folder, "parse", CONFIG, INPUTS)
    part = write_part(folder, "part-00000.parquet", pa.table({"x": list(range(rows))}), {"kept": rows, "dropped": 1})
    close_stage(folder, [part], {"dropped": 10})
    return folder


def test_a_stage_is_unfinished_until_its_manifest_is_written(tmp_path: Path) -> None:
    assert open_stage(tmp_path / "entities", "parse", CONFIG, INPUTS) is None
    assert open_stage(tmp_path / "entities", "parse", CONFIG, INPUTS) is None
    made(tmp_path / "entities")
    manifest = open_stage(tmp_path / "entities", "parse", CONFIG, INPUTS)
    assert manifest is not None
    assert manifest == read_manifest(tmp_path / "entities")


def test_manifest_sums_rows_and_counts(tmp_path: Path) -> None:
    manifest = read_manifest(made(tmp_path / "entities"))
    assert manifest.rows == 3
    assert manifest.counts == {"kept": 3, "dropped": 11}
    assert manifest.config == {"size": 3, "names": ["a", "b"], "inner": {"rate": 0.5}}


def test_digest_follows_the_content_and_not_the_counts(tmp_path: Path) -> None:
    first, same = made(tmp_path / "first"), made(tmp_path / "same")
    manifest = read_manifest(first)
    assert manifest.digest == read_manifest(same).digest
    assert manifest.digest == close_stage(same, manifest.parts, {"dropped": 99}).digest
    assert manifest.digest != read_manifest(made(tmp_path / "other", rows=4)).digest


def test_another_config_is_refused_with_the_difference_and_the_way_out(tmp_path: Path) -> None:
    made(tmp_path / "entities")
    with pytest.raises(ValueError, match=r"config\.inner\.rate = 0\.5 \(now 0\.9\); remove the folder .* or choose"):
        open_stage(tmp_path / "entities", "parse", {**CONFIG, "inner": {"rate": 0.9}}, INPUTS)
    with pytest.raises(ValueError, match=r"inputs\.captions = 'abc' \(now 'xyz'\)"):
        open_stage(tmp_path / "entities", "parse", CONFIG, {"captions": "xyz"})


def test_a_new_setting_that_is_off_accepts_older_folders(tmp_path: Path) -> None:
    made(tmp_path / "entities")
    assert open_stage(tmp_path / "entities", "parse", {**CONFIG, "extra": None}, INPUTS) is not None
    with pytest.raises(ValueError, match=r"config\.extra = None \(now 1\)"):
        open_stage(tmp_path / "entities", "parse", {**CONFIG, "extra": 1}, INPUTS)


def test_a_part_that_went_missing_makes_the_stage_unfinished(tmp_path: Path) -> None:
    folder = made(tmp_path / "entities")
    (folder / "part-00000.parquet").unlink()
    assert open_stage(folder, "parse", CONFIG, INPUTS) is None
    assert finished_part(folder, "part-00000.parquet") is None


def test_reading_what_is_not_finished_names_the_state_and_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the stage that makes entities/ is not there; run it"):
        read_manifest(tmp_path / "entities")
    open_stage(tmp_path / "entities", "parse", CONFIG, INPUTS)
    with pytest.raises(FileNotFoundError, match=r"is begun but not finished; run it \(again\) first"):
        read_manifest(tmp_path / "entities")


def test_another_schema_version_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "entities")
    content = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps({**content, "schema_version": 0}))
    with pytest.raises(ValueError, match=r"schema version 0, expected 2; remove entities/ and run its stage again"):
        read_manifest(folder)


def test_a_part_is_finished_only_with_its_marker(tmp_path: Path) -> None:
    pq.write_table(pa.table({"x": [1]}), tmp_path / "part-00000.parquet")
    assert finished_part(tmp_path, "part-00000.parquet") is None
    part = write_part(tmp_path, "part-00000.parquet", pa.table({"x": [1, 2]}), {"kept": 2})
    assert finished_part(tmp_path, "part-00000.parquet") == part
    assert (part.rows, part.counts) == (2, {"kept": 2})


def test_replacing_keeps_the_old_file_when_the_block_fails(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with contextlib.suppress(RuntimeError), replacing(target) as path:
        path.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    folder = tmp_path / "entities"
    open_stage(folder, "parse", CONFIG, INPUTS)
    (folder / ".part-00000.parquet.123.tmp").write_text("half")
    open_stage(folder, "parse", CONFIG, INPUTS)
    assert [path.name for path in folder.iterdir()] == [STARTED]
