"""Pages: numbers as people read them, pictures inside the page, text that is no markup."""

from __future__ import annotations

from pathlib import Path

from evaluation.page import figure, percent, picture_uri, read_json, render, signed


def test_numbers_are_written_for_people() -> None:
    assert (percent(0.12345), percent(None)) == ("12.3", "–")
    assert (signed(0.1), signed(-0.1), signed(-0.0001), signed(None)) == ("+10.0", "−10.0", "0.0", "–")
    assert (figure(1234567), figure(0.25, "kept share"), figure(1.23456), figure("cc4m")) == (
        *("1,234,567", "25.0 %", "1.235", "cc4m"),
    )


def test_a_picture_becomes_a_part_of_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"picture")
    assert picture_uri(tmp_path, "a.jpg") == "data:image/jpeg;base64,cGljdHVyZQ=="


def test_a_file_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_json(tmp_path / "a.json") is None
    (tmp_path / "a.json").write_text("[1]")
    assert read_json(tmp_path / "a.json") == [1]


def test_text_is_no_markup() -> None:
    assert b"<title>a &lt;b&gt;</title>" in render("page.html.j2", title="a <b>")
