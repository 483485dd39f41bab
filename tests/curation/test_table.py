from __future__ import annotations

import logging
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.source import TableFile, find_tables
from curation.table import (
    BAD_IMAGE,
    BAD_QUOTES,
    BAD_URL,
    BLANK,
    BROKEN_UTF8,
    COLUMN_COUNT,
    LONG_CAPTION,
    LONG_LINE,
    MAX_LINE_BYTES,
    NO_CAPTION,
    NO_OBJECT,
    Refusal,
    Row,
    read_layout,
    read_records,
    read_row,
)


def table(tmp_path: Path, content: str | bytes, name: str = "table.tsv") -> TableFile:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (file,) = find_tables(str(path), tmp_path)
    return file


def parquet(tmp_path: Path, columns: dict[str, object]) -> TableFile:
    pq.write_table(pa.table(columns), tmp_path / "table.parquet")
    (file,) = find_tables(str(tmp_path / "table.parquet"), tmp_path)
    return file


def read(file: TableFile, max_chars: int = 1000) -> tuple[list[Row], list[Refusal]]:
    layout = read_layout(file)
    unpacked, _ = file.open()
    with unpacked:
        read = [read_row(record, layout, max_chars) for record in read_records(file, layout, unpacked)]
    return [row for row in read if isinstance(row, Row)], [row for row in read if isinstance(row, Refusal)]


def captions(file: TableFile) -> list[str]:
    return [row.caption for row in read(file)[0]]


def reasons(file: TableFile) -> dict[int, str]:
    """Return line -> reason of every refused line."""
    return {refusal.line: refusal.reason for refusal in read(file)[1]}


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
        ValueError, match=r"table\.tsv line 1: found columns 'url', 'name'; expected columns 'url' or"
    ) as e:
        read_layout(table(tmp_path, "url\tname\n1.jpg\ta cat\n"))
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
    file = table(tmp_path, 'url\tcaption\nhttp://a/1\t"a cat\nhttp://a/2\ta "dog" 6" tall\nhttp://a/3\ta cow"\n')
    assert captions(file) == ['"a cat', 'a "dog" 6" tall', 'a cow"']
    assert not reasons(file)


def test_a_lone_quote_in_a_comma_separated_table_costs_its_own_line_only(tmp_path: Path) -> None:
    content = (
        'url,caption\nhttp://a/1,"a cat, black"\nhttp://a/2,"a dog\nhttp://a/3,a cow\nhttp://a/4,"a ""big"" owl"\n'
    )
    file = table(tmp_path, content, "table.csv")
    assert reasons(file) == {3: BAD_QUOTES}
    assert captions(file) == ["a cat, black", "a cow", 'a "big" owl']


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
    file = table(tmp_path, "url\tcaption\nhttp://a/1\ta\u2028cat\x0b and \x85 dog\r\n")
    assert captions(file) == ["a\u2028cat\x0b and \x85 dog"]


def test_a_line_without_end_is_refused_and_the_next_one_read(tmp_path: Path) -> None:
    content = b"url\tcaption\nhttp://a/1\t" + b"x" * (2 * MAX_LINE_BYTES + 5) + b"\nhttp://a/2\ta cat\n"
    file = table(tmp_path, content)
    assert reasons(file) == {2: LONG_LINE}
    assert [row.line for row in read(file)[0]] == [3]


def test_ignored_columns_are_those_that_are_not_read(tmp_path: Path) -> None:
    layout = read_layout(table(tmp_path, "id\turl\timage\tcaption\n"))
    assert layout.address_column == "url"
    assert layout.ignored == ["id", "image"]


def test_the_order_is_told_by_most_of_the_first_lines(tmp_path: Path) -> None:
    # The first line is damaged, and one caption is an address.
    lines = [
        "http:/broken\ta cat",
        "http://a/1\thttp://b/2",
        "http://a/2\ta dog",
        "http://a/3\ta cow",
        "http://a/4\tan owl",
    ]
    file = table(tmp_path, "\n".join(lines))
    assert read_layout(file).columns == ("url", "caption")
    assert reasons(file) == {1: BAD_URL}


LAION = {"SAMPLE_ID": [7, 8, 9], "URL": ["http://a/1", None, "http://a/3"], "TEXT": ["a cat", "a dog", None]}
DATACOMP = {"uid": ["x", "y"], "url": ["http://a/1", "http://a/2"], "text": ["a cat", "a dog"], "sha256": ["1", "2"]}


def test_parquet_with_the_columns_of_laion_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    file = parquet(tmp_path, dict(LAION))
    assert read(file)[0] == [Row(1, "http://a/1", "a cat")]
    assert read(file)[1] == [Refusal(2, BAD_URL, "\ta dog"), Refusal(3, NO_CAPTION, "http://a/3\t")]
    assert caplog.messages[0] == "table.parquet: column URL is read as url, TEXT is read as caption"
    assert read_layout(file).ignored == ["sample_id"]


def test_parquet_with_the_columns_of_datacomp_is_read(tmp_path: Path) -> None:
    file = parquet(tmp_path, dict(DATACOMP))
    assert captions(file) == ["a cat", "a dog"]
    assert read_layout(file).description == "Parquet"


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_text_may_be_of_any_arrow_type_for_text(tmp_path: Path, kind: pa.DataType) -> None:
    columns = {"image": pa.array(["1.jpg"], kind), "caption": pa.array(["a cat"], kind)}
    assert read(parquet(tmp_path, dict(columns)))[0] == [Row(1, "1.jpg", "a cat")]


def test_parquet_with_captions_that_are_no_text_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"table\.parquet: column 'caption' holds list<.*>; expected text, one caption"
    ):
        read(parquet(tmp_path, {"url": ["http://a/1"], "caption": [["a cat"]]}))


def test_parquet_without_the_columns_names_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"table\.parquet: found columns 'url', 'n'; expected columns 'url' or 'image'"
    ):
        read(parquet(tmp_path, {"url": ["http://a/1"], "n": [1]}))


def test_a_damaged_parquet_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"table\.parquet: .*expected a whole Parquet file"):
        read(table(tmp_path, b"PAR1 and no more", "table.parquet"))


def test_json_lines_are_read_and_every_bad_one_has_its_reason(tmp_path: Path) -> None:
    lines = [
        '{"id": 1, "url": "http://a/1", "text": "a cat\\tand a \\"dog\\""}',
        '{"url": "http://a/2"}',
        '{"url": "http://a/3", "text": null}',
        "not JSON",
        "",
        '["http://a/6", "a dog"]',
        '{"url": "http://a/7", "text": "half a character: \\ud83d"}',
        '{"text": "an owl", "url": "http://a/8"}',
    ]
    file = table(tmp_path, "\n".join(lines), "table.jsonl")
    assert captions(file) == ['a cat\tand a "dog"', "an owl"]
    assert reasons(file) == {2: NO_OBJECT, 3: NO_OBJECT, 4: NO_OBJECT, 5: BLANK, 6: NO_OBJECT, 7: BROKEN_UTF8}


def test_a_json_array_names_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"table\.json line 1: found a JSON list; expected an object on each line; `jq"
    ):
        read(table(tmp_path, '[{"url": "http://a/1", "caption": "a cat"}]', "table.json"))
    with pytest.raises(ValueError, match=r"table\.json line 1: .*expected JSON lines"):
        read(table(tmp_path, '{\n"url": "http://a/1", "caption": "a cat"}', "table.json"))
