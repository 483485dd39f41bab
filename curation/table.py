"""Caption tables: how the cells of a file lie, and its lines as rows or as refusals with a reason.

A row is a line (of Parquet, a row). Tab-separated tables are read raw, so that a lone quote is a character like any
other; quotes in comma-separated tables must close on their line, so that none can swallow the lines after it.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import count, islice
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import pyarrow as pa
import pyarrow.parquet as pq

from curation.columns import EXPECTED_COLUMNS, URL, columns_of_cells, names_captions, standard_names
from curation.source import TableFile

logger = logging.getLogger(__name__)

BROKEN_UTF8 = "broken UTF-8"
BLANK = "blank line"
BAD_QUOTES = "quotes do not close on their line"
COLUMN_COUNT = "wrong number of columns"
NO_OBJECT = "not a JSON object with address and caption as text"
NO_CAPTION = "empty caption"
LONG_CAPTION = "caption too long"
LONG_LINE = "line longer than 1 MB"
BAD_URL = "address is not http or https"
BAD_IMAGE = "image is not a path inside the image root"

MAX_LINE_BYTES = 1_000_000
_FIRST_LINES = 100
_PARQUET_ROWS = 10_000
_PARQUET = b"PAR1"
_CUT_SHORT = "expected a whole file; was its transfer cut short?"

Cells = tuple[bytes | None, bytes | None]
Record = tuple[int, bytes | Cells]
"""The number of a line, from 1, and what stands there: its bytes, or of Parquet address and caption."""


class Row(NamedTuple):
    """A line that can be used."""

    line: int
    address: str
    caption: str


class Refusal(NamedTuple):
    """A line that is left out."""

    line: int
    reason: str
    content: str


@dataclass(frozen=True)
class Layout:
    """How the cells of a file lie."""

    kind: Literal["delimited", "json", "parquet"]
    """text with a delimiter, a JSON object per line, or Parquet"""
    columns: tuple[str, ...]
    """the columns in order, in lower case, ours under our names"""
    names: tuple[str, ...] = ()
    """the columns as the file names them; empty without a header"""
    delimiter: str = ""
    """between the cells of a delimited file"""
    has_quotes: bool = False
    """cells may stand in double quotes"""

    @property
    def has_header(self) -> bool:
        """The first line that is not blank names the columns."""
        return self.kind == "delimited" and bool(self.names)

    @cached_property
    def address_column(self) -> str:
        """The column of addresses, url or image."""
        return "url" if "url" in self.columns else "image"

    @cached_property
    def places(self) -> tuple[int, int]:
        """Where address and caption stand among the columns."""
        return self.columns.index(self.address_column), self.columns.index("caption")

    @property
    def ignored(self) -> list[str]:
        """Columns that are not read."""
        return [column for column in self.columns if column not in (self.address_column, "caption")]

    @property
    def description(self) -> str:
        """What a person is told of it."""
        if self.kind != "delimited":
            return {"json": "JSON lines", "parquet": "Parquet"}[self.kind]
        return f"{'tab' if self.delimiter == chr(9) else 'comma'}-separated, {'with' if self.names else 'no'} header"


def read_layout(file: TableFile, columns: tuple[str, ...] | None = None, has_quotes: bool | None = None) -> Layout:
    """Return the layout of a file, told from its first lines unless `columns` name those of one without a header.

    Raises: ValueError when captions and addresses are not found.
    """
    unpacked, _ = file.open()
    with unpacked:
        try:
            is_parquet = cast(Any, unpacked).peek(4).startswith(_PARQUET)
        except OSError as error:
            raise ValueError(f"{file.name}: {error}; {_CUT_SHORT}") from error
        if is_parquet:
            return _named(file, "parquet", tuple(_parquet(file, unpacked).schema_arrow.names))
        lines = [_text(line, "replace").removeprefix("\ufeff") for line in islice(_lines(file, unpacked), _FIRST_LINES)]
    lines = [line for line in lines if line.strip()]
    if not lines:
        raise ValueError(f"{file.name}: the file is empty; {EXPECTED_COLUMNS}")
    if lines[0].lstrip().startswith(("{", "[")):
        return _json_layout(file, lines[0])
    return _delimited_layout(file, lines, columns, has_quotes)


def read_records(file: TableFile, layout: Layout, unpacked: BinaryIO) -> Iterator[Record]:
    """Yield the records of an opened file in order, without its header."""
    if layout.kind == "parquet":
        yield from _parquet_records(file, layout, unpacked)
        return
    lines = enumerate(_lines(file, unpacked), start=1)
    if layout.has_header:
        next(line for line in lines if line[1].strip())
    yield from lines


def read_row(record: Record, layout: Layout, max_chars: int) -> Row | Refusal:
    """Return a record as a row, or as a refusal with the reason."""
    number, content = record
    if isinstance(content, tuple):
        try:
            address, caption = ((cell or b"").decode() for cell in content)
        except UnicodeDecodeError:
            return Refusal(number, BROKEN_UTF8, _shown(content))
    else:
        if len(content) >= MAX_LINE_BYTES:
            return Refusal(number, LONG_LINE, _text(content[:1000], "backslashreplace"))
        try:
            text = _text(content).removeprefix("\ufeff" if number == 1 else "")
        except UnicodeDecodeError:
            return Refusal(number, BROKEN_UTF8, _text(content, "backslashreplace"))
        try:
            address, caption = _json_cells(text, layout) if layout.kind == "json" else _delimited_cells(text, layout)
        except _UnreadableError as unreadable:
            return Refusal(number, str(unreadable), text)
    row = Row(number, address.strip(), caption)
    reason = _reason(row, layout, max_chars)
    return Refusal(number, reason, _shown(content)) if reason else row


class _UnreadableError(Exception):
    """The reason why a line has no cells."""


def _delimited_layout(
    file: TableFile, lines: list[str], columns: tuple[str, ...] | None, has_quotes: bool | None
) -> Layout:
    is_tabbed = "\t" in lines[0] or Path(file.name.removesuffix(".gz").removesuffix(".zst")).suffix in (".tsv", ".tab")
    delimiter = "\t" if is_tabbed else ","
    has_quotes = delimiter == "," if has_quotes is None else has_quotes
    if columns is not None:
        return Layout("delimited", standard_names(columns), (), delimiter, has_quotes)
    try:
        first = _cells(lines[0], delimiter, has_quotes)
    except csv.Error as error:
        raise ValueError(f"{file.name} line 1: {error}; set has_quotes = false to read quotes as characters") from error
    if names_captions(standard_names(first)):
        names = tuple(cell.strip() for cell in first)
        return _said(file, Layout("delimited", standard_names(first), names, delimiter, has_quotes))
    told = columns_of_cells([line.split(delimiter) for line in lines])
    if told is None:
        raise ValueError(
            f"{file.name} line 1: found columns {_quoted(first)}; {EXPECTED_COLUMNS}; "
            f"rename them in the header, or name those of a table without one by the setting columns = url,caption"
        )
    logger.info("%s: no header; columns are %s, %s", file.name, *told)
    return Layout("delimited", told, (), delimiter, has_quotes)


def _json_layout(file: TableFile, line: str) -> Layout:
    try:
        first = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{file.name} line 1: {error}; expected JSON lines, that is an object on each line") from error
    if not isinstance(first, dict):
        raise ValueError(
            f"{file.name} line 1: found a JSON {type(first).__name__}; expected an object on each line; "
            f"`jq -c '.[]'` makes lines of an array"
        )
    return _named(file, "json", tuple(first))


def _named(file: TableFile, kind: Literal["json", "parquet"], names: tuple[str, ...]) -> Layout:
    if not names_captions(standard_names(names)):
        raise ValueError(
            f"{file.name}: found columns {_quoted(names)}; {EXPECTED_COLUMNS} (or text, image_url, image_path); "
            f"rename them"
        )
    return _said(file, Layout(kind, standard_names(names), names))


def _said(file: TableFile, layout: Layout) -> Layout:
    renamed = [
        f"{name} is read as {layout.columns[at]}"
        for at in layout.places
        if (name := layout.names[at]) != layout.columns[at]
    ]
    if renamed:
        logger.info("%s: column %s", file.name, ", ".join(renamed))
    return layout


def _lines(file: TableFile, unpacked: BinaryIO) -> Iterator[bytes]:
    """Yield lines; of one that is too long the beginning, so that a file without line ends costs no memory."""
    number = 0
    try:
        while line := unpacked.readline(MAX_LINE_BYTES):
            number += 1
            yield line
            while len(line) == MAX_LINE_BYTES and not line.endswith(b"\n"):
                line = unpacked.readline(MAX_LINE_BYTES)
    except OSError as error:
        raise ValueError(f"{file.name} after line {number:,}: {error}; {_CUT_SHORT}") from error


def _parquet(file: TableFile, unpacked: BinaryIO) -> pq.ParquetFile:
    try:
        return pq.ParquetFile(unpacked)
    except (pa.ArrowException, OSError) as error:
        raise ValueError(f"{file.name}: {error}; expected a whole Parquet file, not packed into another") from error


def _parquet_records(file: TableFile, layout: Layout, unpacked: BinaryIO) -> Iterator[Record]:
    names = [layout.names[at] for at in layout.places]
    parquet = _parquet(file, unpacked)
    for name in names:
        kind = parquet.schema_arrow.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_dictionary(kind)):
            raise ValueError(f"{file.name}: column '{name}' holds {kind}; expected text, one caption per row")
    numbers = count(1)
    for batch in parquet.iter_batches(_PARQUET_ROWS, columns=names):
        # As bytes: Arrow does not promise that they are UTF-8.
        columns = [batch.column(name).cast(pa.large_string()).cast(pa.large_binary()).to_pylist() for name in names]
        yield from zip(islice(numbers, batch.num_rows), zip(*columns, strict=True), strict=True)


def _delimited_cells(text: str, layout: Layout) -> tuple[str, str]:
    try:
        cells = _cells(text, layout.delimiter, layout.has_quotes)
    except csv.Error as error:
        raise _UnreadableError(BAD_QUOTES) from error
    if len(cells) != len(layout.columns):
        raise _UnreadableError(COLUMN_COUNT if text.strip() else BLANK)
    address_at, caption_at = layout.places
    return cells[address_at], cells[caption_at]


def _json_cells(text: str, layout: Layout) -> tuple[str, str]:
    if not text.strip():
        raise _UnreadableError(BLANK)
    address_at, caption_at = layout.places
    try:
        row = json.loads(text)
        address, caption = row[layout.names[address_at]], row[layout.names[caption_at]]
        (address + caption).encode()  # an escape may stand for half a character
    except UnicodeEncodeError as error:
        raise _UnreadableError(BROKEN_UTF8) from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _UnreadableError(NO_OBJECT) from error
    return address, caption


def _reason(row: Row, layout: Layout, max_chars: int) -> str | None:
    """Return why a row cannot be used, or None."""
    if not row.caption.strip():
        return NO_CAPTION
    if len(row.caption) > max_chars:
        return LONG_CAPTION
    if layout.address_column == "url":
        return None if URL.fullmatch(row.address) else BAD_URL
    path = PurePosixPath(row.address)
    return None if row.address and not path.is_absolute() and ".." not in path.parts else BAD_IMAGE


def _text(line: bytes, errors: str = "strict") -> str:
    # Only \n ends a line: str.splitlines would also cut at characters that stand inside captions.
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", errors)


def _shown(content: bytes | Cells) -> str:
    raw = content if isinstance(content, bytes) else b"\t".join(cell or b"" for cell in content)
    return _text(raw, "backslashreplace")


def _quoted(names: tuple[str, ...] | list[str]) -> str:
    return ", ".join(repr(name[:60]) for name in names)


def _cells(line: str, delimiter: str, has_quotes: bool) -> list[str]:
    if has_quotes and '"' in line:
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    return line.split(delimiter)
