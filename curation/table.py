"""Caption tables: how the cells of a text table lie, and its lines as rows or as refusals with a reason.

A row is a line. Tab-separated tables are read raw, so that a lone quote is a character like any other; quotes in
comma-separated tables must close on their line, so that none can swallow the lines after it.
"""

from __future__ import annotations

import csv
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

logger = logging.getLogger(__name__)

BROKEN_UTF8 = "broken UTF-8"
BLANK = "blank line"
BAD_QUOTES = "quotes do not close on their line"
COLUMN_COUNT = "wrong number of columns"
NO_CAPTION = "empty caption"
LONG_CAPTION = "caption too long"
BAD_URL = "address is not http or https"
BAD_IMAGE = "image is not a path inside the image root"

EXPECTED_COLUMNS = "expected columns 'url' or 'image', and 'caption'"

_URL = re.compile(r"https?://[^\s/?#]\S*", re.IGNORECASE)

Lines = list[tuple[int, bytes]]


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
    """How the cells of a table lie."""

    delimiter: str
    """between the cells"""
    has_quotes: bool
    """cells may stand in double quotes"""
    columns: tuple[str, ...]
    """names of the columns in order, lower-case"""
    has_header: bool
    """the first line that is not blank names the columns"""

    @property
    def address_column(self) -> str:
        """The column of addresses, url or image."""
        return "url" if "url" in self.columns else "image"

    @property
    def ignored(self) -> list[str]:
        """Columns that are not read."""
        return [column for column in self.columns if column not in (self.address_column, "caption")]


def names_captions(columns: Sequence[str]) -> bool:
    """Tell whether addresses and captions are among the columns."""
    return "caption" in columns and ("url" in columns or "image" in columns)


def read_layout(table: Path, columns: tuple[str, ...] | None = None, has_quotes: bool | None = None) -> Layout:
    """Return the layout of a table, told from its first line unless `columns` name those of a table without header.

    Raises: ValueError when captions and addresses are not found.
    """
    with table.open("rb") as file:
        first = _text(next((line for line in file if line.strip()), b""), errors="replace").removeprefix("\ufeff")
    if not first:
        raise ValueError(f"{table}: the file is empty; {EXPECTED_COLUMNS}")
    delimiter = "\t" if "\t" in first or table.suffix.lower() in (".tsv", ".tab") else ","
    has_quotes = delimiter == "," if has_quotes is None else has_quotes
    if columns is not None:
        return Layout(delimiter, has_quotes, columns, has_header=False)
    try:
        cells = [cell.strip() for cell in _cells(first, delimiter, has_quotes)]
    except csv.Error as error:
        raise ValueError(f"{table} line 1: {error}; set has_quotes = false to read quotes as characters") from error
    if names_captions(names := tuple(cell.lower() for cell in cells)):
        return Layout(delimiter, has_quotes, names, has_header=True)
    is_address = [bool(_URL.fullmatch(cell)) for cell in cells]
    if sorted(is_address) == [False, True]:
        names = ("url", "caption") if is_address[0] else ("caption", "url")
        logger.info("%s: no header; columns are %s, %s", table.name, *names)
        return Layout(delimiter, has_quotes, names, has_header=False)
    found = ", ".join(repr(cell[:60]) for cell in cells)
    raise ValueError(
        f"{table} line 1: found columns {found}; {EXPECTED_COLUMNS}; "
        f"rename them in the header, or name those of a table without one by the setting columns = url,caption"
    )


def read_batches(file: BinaryIO, layout: Layout, num_lines: int) -> Iterator[Lines]:
    """Yield the lines of an open table and their numbers (from 1), without its header, in lists of `num_lines`."""
    lines = enumerate(file, start=1)
    if layout.has_header:
        next(line for line in lines if line[1].strip())
    while batch := list(islice(lines, num_lines)):
        yield batch


def read_rows(lines: Iterable[tuple[int, bytes]], layout: Layout, max_chars: int) -> tuple[list[Row], list[Refusal]]:
    """Return the lines that can be used, and the others with the reason."""
    address_at, caption_at = layout.columns.index(layout.address_column), layout.columns.index("caption")
    rows, refusals = [], []
    for number, content in lines:
        try:
            text = _text(content).removeprefix("\ufeff" if number == 1 else "")
            cells = _cells(text, layout.delimiter, layout.has_quotes)
        except UnicodeDecodeError:
            refusals.append(Refusal(number, BROKEN_UTF8, _text(content, errors="backslashreplace")))
            continue
        except csv.Error:
            refusals.append(Refusal(number, BAD_QUOTES, text))
            continue
        if len(cells) != len(layout.columns):
            refusals.append(Refusal(number, COLUMN_COUNT if text.strip() else BLANK, text))
            continue
        row = Row(number, cells[address_at].strip(), cells[caption_at])
        reason = _reason(row, layout, max_chars)
        if reason:
            refusals.append(Refusal(number, reason, text))
        else:
            rows.append(row)
    return rows, refusals


def _reason(row: Row, layout: Layout, max_chars: int) -> str | None:
    """Return why a row cannot be used, or None."""
    if not row.caption.strip():
        return NO_CAPTION
    if len(row.caption) > max_chars:
        return LONG_CAPTION
    if layout.address_column == "url":
        return None if _URL.fullmatch(row.address) else BAD_URL
    path = PurePosixPath(row.address)
    return None if row.address and not path.is_absolute() and ".." not in path.parts else BAD_IMAGE


def _text(line: bytes, errors: str = "strict") -> str:
    # Only \n ends a line: str.splitlines would also cut at characters that stand inside captions.
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", errors)


def _cells(line: str, delimiter: str, has_quotes: bool) -> list[str]:
    if has_quotes and '"' in line:
        return next(csv.reader([line], delimiter=delimiter, strict=True))
    return line.split(delimiter)
