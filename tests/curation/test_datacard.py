from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from curation.datacard import join_datacards, read_datacard, write_datacard


def test_card_is_written_for_programs_and_for_people(tmp_path: Path) -> None:
    tables = {"entities": [{"entity": "cat", "captions": 1200}, {"entity": "a|b", "images": 3}]}
    write_datacard(
        tmp_path, "Captions", {"rows": np.int64(1234), "share": 0.25, "mean": 36120.4}, {"few": 1, "many": 9}, tables
    )
    assert read_datacard(tmp_path) == {
        "title": "Captions",
        "figures": {"rows": 1234, "share": 0.25, "mean": 36120.4},
        "drops": {"few": 1, "many": 9},
        "tables": tables,
    }
    lines = (tmp_path / "datacard.md").read_text().splitlines()
    assert lines[0] == "# Captions"
    for line in ("| rows | 1,234 |", "| share | 0.25 |", "| mean | 36,120 |"):
        assert line in lines
    assert lines.index("| many | 9 |") < lines.index("| few | 1 |")
    assert "| entity | captions | images |" in lines
    assert "| a\\|b |  | 3 |" in lines


def test_card_without_drops_and_tables_has_empty_ones(tmp_path: Path) -> None:
    write_datacard(tmp_path, "Captions", {})
    assert read_datacard(tmp_path) == {"title": "Captions", "figures": {}, "drops": {}, "tables": {}}


def test_card_refuses_what_is_no_figure_and_leaves_the_old_one(tmp_path: Path) -> None:
    write_datacard(tmp_path, "old", {})
    with pytest.raises(TypeError, match="a data card holds numbers and strings, found set"):
        write_datacard(tmp_path, "new", {}, tables={"entities": [{"names": {"cat"}}]})
    assert read_datacard(tmp_path)["title"] == "old"


def test_the_cards_of_all_stages_become_one(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no stage has left a data card; run `ovseg ingest` first"):
        join_datacards(tmp_path)
    for name, title in (("images", "Images"), ("captions", "Captions")):
        (tmp_path / name).mkdir()
        write_datacard(
            tmp_path / name, title, {"rows": 3}, {"blank": 1}, picture="bars.svg" if name == "images" else None
        )
    lines = join_datacards(tmp_path).read_text().splitlines()
    assert [line for line in lines if line.startswith("#")] == [
        *("# Data card", "## Captions", "### Left out, by reason", "## Images", "### Left out, by reason")
    ]
    assert "![Images](images/bars.svg)" in lines
    assert "![Images](bars.svg)" in (tmp_path / "images" / "datacard.md").read_text()
    assert list(read_datacard(tmp_path)) == ["captions", "images"]
