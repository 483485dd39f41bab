from __future__ import annotations

import logging
from pathlib import Path

import pytest

from curation.table import (
    BAD_IMAGE,
    BAD_QUOTES,
    BAD_URL,
    BLANK,
    BROKEN_UTF8,
    COLUMN_COUNT,
    LONG_CAPTION,
    NO_CAPTION,
    Layout,
    read_batches,
    read_layout,
    read_rows,
)


def table(tmp_path: Path, content: str | bytes, name: str = "table.tsv") -> Path:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def reasons(path: Path, max_chars: int = 1000) -> dict[int, str]:
    """Return line -> reason of every refused line."""
    layout = read_layout(path)
    with path.open("rb") as file:
        lines = [line for batch in read_batches(file, layout, 2) for line in batch]
    rows, refusals = read_rows(lines, layout, max_chars)
    assert len(rows) + len(refusals) == len(lines)
    return {refusal.line: refusal.reason for refusal in refusals}


@pytest.mark.parametrize(
    ("first", "name", "columns", "delimiter", "has_header"),
    [
        ("http://a/1.jpg\ta cat", "cc12m.tsv", ("url", "caption"), "\t", False),
        ("a cat\thttps://a/1.jpg", "cc3m.tsv", ("caption", "url"), "\t", False),
        ("image\tcaption", "photos.tsv", ("image", "caption"), "\t", True),
        ("URL, Caption", "table.csv", ("url", "caption"), ",", True),
        ("id\tcaption\turl", "table.txt", ("id", "caption", "url"), "\t", True),
        ("\ufeffurl\tcaption", "bom.tsv", ("url", "caption"), "\t", True),
        ('"url","caption"', "quoted.csv", ("url", "caption"), ",", True),
    ],
)
def test_layout_is_told_from_the_first_line(
    tmp_path: Path, first: str, name: str, columns: tuple[str, ...], delimiter: str, has_header: bool
) -> None:
    layout = read_layout(table(tmp_path, first + "\n", name))
    assert (layout.columns, layout.delimiter, layout.has_header) == (columns, delimiter, has_header)
    assert layout.has_quotes == (delimiter == ",")


def test_order_of_a_table_without_header_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    read_layout(table(tmp_path, "a cat\thttps://a/1.jpg", "cc3m.tsv"))
    assert caplog.messages == ["cc3m.tsv: no header; columns are caption, url"]


def test_missing_columns_are_named_with_file_line_and_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"table\.tsv line 1: found columns 'url', 'text'; expected columns 'url' or"
    ) as e:
        read_layout(table(tmp_path, "url\ttext\nhttp://a/1.jpg\ta cat\n"))
    assert "rename them in the header, or name those of a table without one" in str(e.value)


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"table\.tsv: the file is empty; expected columns"):
        read_layout(table(tmp_path, ""))


def test_columns_can_be_named_by_the_user(tmp_path: Path) -> None:
    path = table(tmp_path, "1.jpg\ta cat\n")
    layout = read_layout(path, columns=("image", "caption"))
    assert not layout.has_header
    assert layout.address_column == "image"


def test_an_open_quote_in_the_first_line_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"table\.csv line 1: .*set has_quotes = false"):
        read_layout(table(tmp_path, '"url,caption\n', "table.csv"))


def test_a_lone_quote_in_a_tab_separated_table_is_a_character(tmp_path: Path) -> None:
    path = table(tmp_path, 'url\tcaption\nhttp://a/1\t"a cat\nhttp://a/2\ta "dog" 6" tall\nhttp://a/3\ta cow"\n')
    layout = read_layout(path)
    with path.open("rb") as file:
        (lines,) = read_batches(file, layout, 10)
    rows, refusals = read_rows(lines, layout, 100)
    assert [row.caption for row in rows] == ['"a cat', 'a "dog" 6" tall', 'a cow"']
    assert not refusals


def test_a_lone_quote_in_a_comma_separated_table_costs_its_own_line_only(tmp_path: Path) -> None:
    content = (
        'url,caption\nhttp://a/1,"a cat, black"\nhttp://a/2,"a dog\nhttp://a/3,a cow\nhttp://a/4,"a ""big"" owl"\n'
    )
    path = table(tmp_path, content, "table.csv")
    assert reasons(path) == {3: BAD_QUOTES}
    layout = read_layout(path)
    with path.open("rb") as file:
        (lines,) = read_batches(file, layout, 10)
    rows, _ = read_rows(lines, layout, 100)
    assert [row.caption for row in rows] == ["a cat, black", "a cow", 'a "big" owl']


def test_every_bad_line_has_its_reason(tmp_path: Path) -> None:
    lines = [
        b"url\tcaption",
        b"http://a/1.jpg\ta cat",
        b"http://a/2.jpg\tbroken \xff\xfe bytes",
        b"http://a/3.jpg\ttoo\tmany",
        b"http://a/4.jpg",
        b"",
        b"http://a/5.jpg\t  ",
        b"ftp://a/6.jpg\ta dog",
        b"http:///7.jpg\ta dog",
        b"javascript:alert(1)\ta dog",
        b"http://a/8 .jpg\ta dog",
        b"http://a/9.jpg\t" + b"x" * 1001,
        b"HTTPS://a/10.jpg\ta dog\r",
    ]
    expected = {3: BROKEN_UTF8, 4: COLUMN_COUNT, 5: COLUMN_COUNT, 6: BLANK, 7: NO_CAPTION}
    expected |= {8: BAD_URL, 9: BAD_URL, 10: BAD_URL, 11: BAD_URL, 12: LONG_CAPTION}
    assert reasons(table(tmp_path, b"\n".join(lines))) == expected


def test_images_outside_the_image_root_are_refused(tmp_path: Path) -> None:
    path = table(
        tmp_path, "image\tcaption\n1.jpg\ta\nin/2.jpg\ta\n/etc/3.jpg\ta\n../4.jpg\ta\nin/../../5.jpg\ta\n\ta\n"
    )
    assert reasons(path) == {4: BAD_IMAGE, 5: BAD_IMAGE, 6: BAD_IMAGE, 7: BAD_IMAGE}


def test_only_newlines_end_a_line(tmp_path: Path) -> None:
    path = table(tmp_path, "url\tcaption\nhttp://a/1\ta\u2028cat\x0b and \x85 dog\r\n")
    with path.open("rb") as file:
        (lines,) = read_batches(file, layout := read_layout(path), 10)
    rows, _ = read_rows(lines, layout, 100)
    assert [row.caption for row in rows] == ["a\u2028cat\x0b and \x85 dog"]


def test_ignored_columns_are_those_that_are_not_read() -> None:
    layout = Layout("\t", False, ("id", "url", "image", "caption"), True)
    assert layout.address_column == "url"
    assert layout.ignored == ["id", "image"]
