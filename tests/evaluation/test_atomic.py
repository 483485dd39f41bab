"""Files are there whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from evaluation.atomic import write_bytes, write_json


def test_folders_are_made_and_nothing_else_is_left(tmp_path: Path) -> None:
    write_json(tmp_path / "a/b/c.json", {"x": 1})
    assert [path.name for path in (tmp_path / "a/b").iterdir()] == ["c.json"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_bytes(tmp_path / "file", b"old")

    def fail(descriptor: int) -> None:
        raise OSError(f"disk full at {descriptor}")

    monkeypatch.setattr("os.fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_bytes(tmp_path / "file", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_bytes() == b"old"


def test_nan_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "x.json", {"x": float("nan")})
