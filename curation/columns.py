"""The columns of caption tables: under which names they go, and which column is which when none is named."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

EXPECTED_COLUMNS = "expected columns 'url' or 'image', and 'caption'"

OTHER_NAMES = {
    "url": ("image_url", "img_url"),
    "image": ("image_path", "filepath"),
    "caption": ("text", "alt_text"),
}
"""Names, in lower case, under which published tables (LAION, DataComp, COYO, CC3M's Parquet) hold our columns."""

URL = re.compile(r"https?://[^\s/?#]\S*", re.IGNORECASE)
"""An address that can be fetched."""


def standard_names(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of columns in lower case, those that mean ours under our names."""
    columns = [name.strip().lower() for name in names]
    for ours, others in OTHER_NAMES.items():
        other = next((other for other in others if other in columns), None)
        if ours not in columns and other:
            columns[columns.index(other)] = ours
    return tuple(columns)


def names_captions(columns: Sequence[str]) -> bool:
    """Tell whether addresses and captions are among the columns."""
    return "caption" in columns and ("url" in columns or "image" in columns)


def columns_of_cells(rows: Sequence[Sequence[str]]) -> tuple[str, ...] | None:
    """Return the columns of a table without a header from its first rows, or None when they do not tell.

    A row of two cells, just one of them an address, says which is which; most rows must say so, and agree.
    """
    votes = Counter(tuple(bool(URL.fullmatch(cell.strip())) for cell in row) for row in rows)
    for columns, is_address in ((("url", "caption"), (True, False)), (("caption", "url"), (False, True))):
        if 2 * votes[is_address] > len(rows):
            return columns
    return None
