"""Ingest: a caption table becomes captions/, one row per caption with the key that joins all later tables.

Every line of the table ends up in exactly one place: in a part, or in refused.parquet with its number and the reason.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from curation.datacard import write_datacard
from curation.manifest import Manifest, Part, close_stage, finished_part, open_stage, replacing, write_part
from curation.progress import Progress
from curation.schema import CAPTIONS, REFUSED, file_digest, image_key, part_name
from curation.table import EXPECTED_COLUMNS, Layout, Refusal, Row, names_captions, read_batches, read_layout, read_rows

logger = logging.getLogger(__name__)

REFUSED_NAME = "refused.parquet"

COLLISION = "another address has the same key"
DUPLICATE = "duplicate of an earlier row"


@dataclass(frozen=True)
class IngestConfig:
    """How a caption table is read."""

    columns: tuple[str, ...] | None = None
    """names of the columns of a table without a header, like ("url", "caption"); None: told from its first line"""
    has_quotes: bool | None = None
    """cells may stand in double quotes; None: yes in comma-separated tables, no in tab-separated ones"""
    part_rows: int = 100_000
    """lines of the table that go into one part"""
    max_caption_chars: int = 10_000
    """longer captions are refused (characters)"""
    max_refused_rate: float = 0.5
    """stop when more than this share of at least 1,000 lines cannot be used (duplicates not counted)"""

    def __post_init__(self) -> None:
        if self.part_rows < 1:
            raise ValueError(f"part_rows = {self.part_rows}: expected 1 or more lines; 100,000 is a good size")
        if not 0 <= self.max_refused_rate <= 1:
            raise ValueError(f"max_refused_rate = {self.max_refused_rate}: expected a share between 0 and 1")
        if self.columns is not None and not names_captions(self.columns):
            raise ValueError(f"columns = {self.columns}: {EXPECTED_COLUMNS}")


def ingest(
    table: Path, data_dir: Path, config: IngestConfig | None = None, key_of: Callable[[str], int] = image_key
) -> Manifest:
    """Write captions/ from a table of addresses and captions; rows keep the order of the table.

    Known are CC12M's TSV (url, caption) and CC3M's (caption, url), both without header, and TSV or CSV with a header
    that names `url` or `image`, and `caption`; further columns are ignored. Of lines with the same address and text
    the first is kept. The pass starts over when it was killed, but parts that lie finished are not written again.

    Raises: ValueError when the columns cannot be told, or too many lines are refused.
    """
    config = config or IngestConfig()
    layout = read_layout(table, config.columns, config.has_quotes)
    folder = data_dir / "captions"
    finished = open_stage(folder, "ingest", asdict(config), {table.name: file_digest(table)})
    if finished:
        return finished
    if layout.ignored:
        logger.info("%s: columns %s are ignored", table.name, ", ".join(layout.ignored))
    parts: list[Part] = []
    counts = Counter({"read": 0, "kept": 0})
    seen = Kept()
    with (
        table.open("rb") as file,
        replacing(folder / REFUSED_NAME) as path,
        pq.ParquetWriter(path, REFUSED, compression="zstd") as refused_writer,
        Progress("ingest", table.stat().st_size) as progress,
    ):
        for lines in read_batches(file, layout, config.part_rows):
            rows, refusals = read_rows(lines, layout, config.max_caption_chars)
            captions, late = _admit(rows, seen, layout, key_of)
            refusals = sorted([*refusals, *late])
            refused_writer.write_table(_refused_table(table.name, refusals))
            name = part_name(len(parts))
            if captions.num_rows:
                parts.append(finished_part(folder, name) or write_part(folder, name, captions))
            reasons = Counter(refusal.reason for refusal in refusals)
            counts.update({"read": len(lines), "kept": captions.num_rows, **reasons})
            _stop_if_hopeless(table, counts, refusals, config)
            size = sum(len(content) for _, content in lines)
            progress.part(name, size, len(lines), captions.num_rows, reasons)
    _write_card(folder, table, layout, counts, seen)
    return close_stage(folder, parts, counts)


class Kept:
    """What has been kept so far, in about 28 bytes a caption: enough to find collisions and duplicates.

    Texts are compared by a 64-bit hash (of address and text): among the 12 million captions of CC12M the chance that
    any is taken for a duplicate wrongly is 4 in a million.
    """

    def __init__(self) -> None:
        self._keys: npt.NDArray[np.int64] = np.empty(0, np.int64)
        self._addresses: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        self._num_captions: npt.NDArray[np.int32] = np.empty(0, np.int32)
        self._texts: npt.NDArray[np.uint64] = np.empty(0, np.uint64)

    @property
    def num_images(self) -> int:
        """Different addresses kept."""
        return len(self._keys)

    def admit(self, keys: list[int], addresses: Sequence[str], captions: Sequence[str]) -> list[int | str]:
        """Return per caption the caption_id under which it is kept, or the reason why it is not; remember the kept."""
        address_hashes = [xxhash.xxh3_64_intdigest(address.encode(), seed=1) for address in addresses]
        text_hashes = [
            xxhash.xxh3_64_intdigest(caption.encode(), seed=hashed)
            for caption, hashed in zip(captions, address_hashes, strict=True)
        ]
        distinct = np.unique(np.array(text_hashes, np.uint64))
        is_new = dict(zip(distinct.tolist(), (~_contains(self._texts, distinct)).tolist(), strict=True))
        owners = self._owners(keys)
        verdicts: list[int | str] = []
        for key, address, text in zip(keys, address_hashes, text_hashes, strict=True):
            owner, num_captions = owners.get(key, (address, 0))
            if owner != address:
                verdicts.append(COLLISION)
            elif not is_new[text]:
                verdicts.append(DUPLICATE)
            else:
                verdicts.append(num_captions)
                owners[key] = (address, num_captions + 1)
                is_new[text] = False
        self._remember(owners, text_hashes, verdicts)
        return verdicts

    def _owners(self, keys: list[int]) -> dict[int, tuple[int, int]]:
        """Return the address hash and the number of captions of those keys that are known."""
        wanted = np.unique(np.array(keys, np.int64))
        known = wanted[_contains(self._keys, wanted)]
        at = self._keys.searchsorted(known)
        pairs = zip(self._addresses[at].tolist(), self._num_captions[at].tolist(), strict=True)
        return dict(zip(known.tolist(), pairs, strict=True))

    def _remember(self, owners: dict[int, tuple[int, int]], texts: list[int], verdicts: list[int | str]) -> None:
        keys = np.array(sorted(owners), np.int64)
        addresses = np.array([owners[key][0] for key in keys.tolist()], np.uint64)
        num_captions = np.array([owners[key][1] for key in keys.tolist()], np.int32)
        at = self._keys.searchsorted(keys)
        new = ~_contains(self._keys, keys)
        self._num_captions[at[~new]] = num_captions[~new]
        self._keys = np.insert(self._keys, at[new], keys[new])
        self._addresses = np.insert(self._addresses, at[new], addresses[new])
        self._num_captions = np.insert(self._num_captions, at[new], num_captions[new])
        kept = [text for text, verdict in zip(texts, verdicts, strict=True) if isinstance(verdict, int)]
        new_texts = np.unique(np.array(kept, np.uint64))
        self._texts = np.insert(self._texts, self._texts.searchsorted(new_texts), new_texts)


def _contains(ordered: npt.NDArray[Any], values: npt.NDArray[Any]) -> npt.NDArray[np.bool_]:
    """Return which values an ordered array holds; unlike np.isin at a cost that does not sort it again."""
    if not len(ordered):
        return np.zeros(len(values), np.bool_)
    at = np.minimum(ordered.searchsorted(values), len(ordered) - 1)
    return np.asarray(ordered[at] == values)


def _admit(rows: list[Row], kept: Kept, layout: Layout, key_of: Callable[[str], int]) -> tuple[pa.Table, list[Refusal]]:
    """Return the table of the rows that are new, and the others with the reason."""
    keys = [key_of(row.address) for row in rows]
    verdicts = kept.admit(keys, [row.address for row in rows], [row.caption for row in rows])
    refusals = [
        Refusal(row.line, verdict, f"{row.address}\t{row.caption}")
        for row, verdict in zip(rows, verdicts, strict=True)
        if isinstance(verdict, str)
    ]
    is_url = layout.address_column == "url"
    columns: dict[str, list[int | str | None]] = {name: [] for name in CAPTIONS.names}
    for key, row, verdict in zip(keys, rows, verdicts, strict=True):
        if isinstance(verdict, int):
            values = (key, verdict, row.address if is_url else None, None if is_url else row.address, row.caption)
            for column, value in zip(columns.values(), values, strict=True):
                column.append(value)
    return pa.table(columns, schema=CAPTIONS), refusals


def _refused_table(name: str, refusals: list[Refusal]) -> pa.Table:
    return pa.Table.from_pylist([{"file": name, **refusal._asdict()} for refusal in refusals], schema=REFUSED)


def _stop_if_hopeless(table: Path, counts: Counter[str], refusals: list[Refusal], config: IngestConfig) -> None:
    unusable = counts["read"] - counts["kept"] - counts[DUPLICATE]
    if counts["read"] >= 1000 and unusable > config.max_refused_rate * counts["read"]:
        example = next(refusal for refusal in refusals if refusal.reason != DUPLICATE)
        raise ValueError(
            f"{table} line {example.line}: {example.reason}, and {unusable:,} of {counts['read']:,} lines like it or "
            f"otherwise unusable; expected at most {config.max_refused_rate:.0%}; is this the table that you mean? "
            f"If so, raise max_refused_rate"
        )


def _write_card(folder: Path, table: Path, layout: Layout, counts: Counter[str], kept: Kept) -> None:
    figures: dict[str, int | float | str] = {
        "table": table.name,
        "columns": ", ".join(layout.columns),
        "columns ignored": ", ".join(layout.ignored) or "none",
        "rows read": counts["read"],
        "rows kept": counts["kept"],
        "kept share": counts["kept"] / max(counts["read"], 1),
        "images": kept.num_images,
    }
    drops = {reason: count for reason, count in counts.items() if reason not in ("read", "kept")}
    write_datacard(folder, "Captions", figures, drops)
