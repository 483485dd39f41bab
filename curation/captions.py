"""Ingest: a caption table becomes captions/, one row per caption with the key that joins all later tables.

Every line of the table ends up in exactly one place: in a part, or in refused.parquet with its file, number and reason.
Memory does not grow with the table: lines are read batch by batch into scratch files, judged by key in buckets, and
written batch by batch. A killed ingest goes on behind its last whole batch.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from curation.admission import COLLISION, DUPLICATE, ENTRY, Entries, Verdicts, judge_rows
from curation.captions_card import CaptionsCard
from curation.columns import EXPECTED_COLUMNS, names_captions, standard_names
from curation.datacard import counted
from curation.manifest import Manifest, Part, close_stage, finished_part, open_stage, replacing, write_part
from curation.progress import Progress
from curation.removal import TAKEN_OUT, Removal
from curation.schema import (
    CAPTIONS,
    REFUSED,
    address_digest,
    caption_digest,
    file_digest,
    image_key,
    part_name,
)
from curation.source import TableFile, find_tables
from curation.subset import Subset
from curation.table import Layout, Record, Refusal, read_layout, read_records, read_row

logger = logging.getLogger(__name__)

REFUSED_NAME = "refused.parquet"
SCRATCH = ".scratch"

ANOTHER_ADDRESS = "another address has the same key"
REPEATED = "duplicate of an earlier row"
NOT_IN_SUBSET = "not in the subset"

_FILES = ("removed", "subset")

# Rows of one batch as they are read: refused ones have a reason, the others all the rest.
_READ = pa.schema(
    [
        *(("file", pa.int32()), ("line", pa.int64()), ("reason", pa.string()), ("content", pa.string())),
        *(("key", pa.int64()), ("address_digest", pa.uint64()), ("caption_digest", pa.uint64())),
        *(("url", pa.string()), ("image", pa.string()), ("caption", pa.string())),
    ]
)
_LINES = "lines.json"

Batch = list[tuple[int, list[Record]]]
"""Records in order, by the number of the file that they are from."""


@dataclass(frozen=True)
class IngestConfig:
    """How a caption table is read."""

    columns: tuple[str, ...] | None = None
    """names of the columns of a table without a header, like ("url", "caption"); None: told from its first lines"""
    has_quotes: bool | None = None
    """cells may stand in double quotes; None: yes in comma-separated tables, no in tab-separated ones"""
    part_rows: int = 100_000
    """lines of the table that go into one part"""
    max_caption_chars: int = 10_000
    """longer captions are refused (characters)"""
    max_refused_rate: float = 0.5
    """stop when more than this share of at least 1,000 lines cannot be used (duplicates not counted)"""
    removed: str | None = None
    """file with an address, domain or key on each line: rows that have one are refused; None takes out nothing"""
    subset: str | None = None
    """subset manifest (`ovseg subset`): only its captions are kept, under its caption_id; None keeps all"""

    def __post_init__(self) -> None:
        if self.part_rows < 1:
            raise ValueError(f"part_rows = {self.part_rows}: expected 1 or more lines; 100,000 is a good size")
        if not 0 <= self.max_refused_rate <= 1:
            raise ValueError(f"max_refused_rate = {self.max_refused_rate}: expected a share between 0 and 1")
        if self.columns is not None and not names_captions(standard_names(self.columns)):
            raise ValueError(f"columns = {self.columns}: {EXPECTED_COLUMNS}")


def ingest(
    table: Path | str, data_dir: Path, config: IngestConfig | None = None, key_of: Callable[[str], int] = image_key
) -> Manifest:
    """Write captions/ from a table of addresses and captions; rows keep the order of the table.

    `table` is a file, a folder, a glob, an fsspec or http(s) address, or the name of a published table (cc12m, cc3m).
    Known are CC12M's TSV (url, caption) and CC3M's (caption, url), both without header, TSV and CSV with a header,
    Parquet and JSON lines, plain or packed by gzip or Zstandard; the columns are `url` or `image`, and `caption`, or
    names that stand for them, and further columns are ignored. Of lines with the same address and text the first is
    kept.

    Raises: ValueError when the columns cannot be told, or too many lines are refused.
    """
    config = config or IngestConfig()
    files = find_tables(str(table), data_dir)
    layouts = [read_layout(file, config.columns, config.has_quotes) for file in files]
    removal = Removal(Path(config.removed)) if config.removed else None
    subset = Subset(Path(config.subset)) if config.subset else None
    inputs = {file.name: file.digest() for file in files}
    # The list and the manifest are inputs: what counts is what they say, not where they lie.
    inputs |= {name: file_digest(Path(path)) for name in _FILES if (path := getattr(config, name))}
    folder = data_dir / "captions"
    content = {name: value for name, value in asdict(config).items() if name not in _FILES}
    if finished := open_stage(folder, "ingest", content, inputs):
        return finished
    for file, layout in zip(files, layouts, strict=True):
        if layout.ignored:
            logger.info("%s: columns %s are ignored", file.name, ", ".join(layout.ignored))
    scratch_dir = folder / SCRATCH
    scratch_dir.mkdir(exist_ok=True)
    num_rows = _read_all(files, layouts, config, removal, key_of, scratch_dir)
    batches = [scratch_dir / f"{number:05d}.arrow" for number in range(-(-num_rows // config.part_rows))]
    verdicts = judge_rows(_entries(batches), num_rows, scratch_dir / "keys")
    manifest = _write_all(folder, files, layouts, batches, verdicts, removal, subset)
    del verdicts
    shutil.rmtree(scratch_dir)
    return manifest


def _read_all(
    files: list[TableFile],
    layouts: list[Layout],
    config: IngestConfig,
    removal: Removal | None,
    key_of: Callable[[str], int],
    scratch_dir: Path,
) -> int:
    """Read the lines of all files into scratch files, one per batch that is not there yet; return their number."""
    if (scratch_dir / _LINES).exists():
        return int(json.loads((scratch_dir / _LINES).read_text()))
    counts, num_rows = Counter[str](), 0
    with Progress("read", sum(file.size for file in files)) as progress:
        for number, (batch, position) in enumerate(_batches(files, layouts, config.part_rows)):
            num_lines = sum(len(records) for _, records in batch)
            num_rows += num_lines
            path = scratch_dir / f"{number:05d}.arrow"
            if path.exists():
                continue
            rows = _read_batch(batch, layouts, config.max_caption_chars, removal, key_of)
            counts.update({"lines": num_lines, "unusable": _stop_if_hopeless(rows, counts, num_lines, files, config)})
            with replacing(path) as temporary, pa.ipc.new_file(str(temporary), _READ) as writer:
                writer.write_table(rows)
            reasons = counted(rows["reason"])
            progress.part(f"{number:05d}", position - progress.done, num_lines, rows["reason"].null_count, reasons)
    with replacing(scratch_dir / _LINES) as path:
        path.write_text(json.dumps(num_rows))
    return num_rows


def _batches(files: list[TableFile], layouts: list[Layout], num_lines: int) -> Iterator[tuple[Batch, int]]:
    """Yield the records of all files in batches, and how many stored bytes have been read."""
    batch: Batch = []
    missing, size_before = num_lines, 0
    for number, (file, layout) in enumerate(zip(files, layouts, strict=True)):
        unpacked, stored = file.open()
        with unpacked:
            records = read_records(file, layout, unpacked)
            while chunk := list(islice(records, missing)):
                batch.append((number, chunk))
                missing -= len(chunk)
                if not missing:
                    yield batch, size_before + min(stored.tell(), file.size)
                    batch, missing = [], num_lines
        size_before += file.size
    if batch:
        yield batch, size_before


def _read_batch(
    batch: Batch, layouts: list[Layout], max_chars: int, removal: Removal | None, key_of: Callable[[str], int]
) -> pa.Table:
    rows: list[tuple[Any, ...]] = []
    for file, records in batch:
        layout = layouts[file]
        is_url = layout.address_column == "url"
        for record in records:
            row = read_row(record, layout, max_chars)
            if isinstance(row, Refusal):
                rows.append((file, *row, None, None, None, None, None, None))
                continue
            line, address, caption = row
            key = key_of(address)
            if removal and (entry := removal.entry_of(address, key)):
                # What was taken out leaves no trace but the entry that took it out.
                rows.append((file, line, TAKEN_OUT, entry, None, None, None, None, None, None))
                continue
            digest = address_digest(address)
            places = (address, None) if is_url else (None, address)
            rows.append((file, line, None, None, key, digest, caption_digest(digest, caption), *places, caption))
    columns = zip(*rows, strict=True)
    return pa.table([pa.array(c, f.type) for c, f in zip(columns, _READ, strict=True)], schema=_READ)


def _stop_if_hopeless(
    rows: pa.Table, counts: Counter[str], num_lines: int, files: list[TableFile], config: IngestConfig
) -> int:
    """Return how many rows cannot be used.

    Raises: ValueError when they and those before are too many.
    """
    refused = rows.filter(pc.fill_null(pc.not_equal(rows["reason"], TAKEN_OUT), False))
    unusable, read = counts["unusable"] + refused.num_rows, counts["lines"] + num_lines
    if read >= 1000 and unusable > config.max_refused_rate * read:
        # The line of this batch that tells most: what is refused here, else the first.
        example: dict[str, Any] = (refused if refused.num_rows else rows).slice(0, 1).to_pylist()[0]
        raise ValueError(
            f"{files[example['file']].name} line {example['line']}: {example['reason']}, and {unusable:,} of {read:,} "
            f"lines like it or otherwise unusable; expected at most {config.max_refused_rate:.0%}; "
            f"is this the table that you mean? If so, raise max_refused_rate"
        )
    return int(refused.num_rows)


def _entries(batches: list[Path]) -> Iterator[Entries]:
    """Yield what decides on the rows of each batch that can be used."""
    first_row = 0
    for path in batches:
        rows = _load(path)
        usable = np.flatnonzero(pc.is_null(rows["reason"]).to_numpy())
        entries = np.empty(len(usable), ENTRY)
        entries["row"] = first_row + usable
        for field, column in (("key", "key"), ("address", "address_digest"), ("text", "caption_digest")):
            entries[field] = rows[column].take(usable).to_numpy()
        yield entries
        first_row += rows.num_rows


def _write_all(
    folder: Path,
    files: list[TableFile],
    layouts: list[Layout],
    batches: list[Path],
    verdicts: Verdicts,
    removal: Removal | None,
    subset: Subset | None,
) -> Manifest:
    """Write the parts, refused.parquet, the data card and the manifest."""
    names = pa.array([file.name for file in files])
    parts: list[Part] = []
    card = CaptionsCard()
    first_row = 0
    with (
        replacing(folder / REFUSED_NAME) as path,
        pq.ParquetWriter(path, REFUSED, compression="zstd") as refused_writer,
        Progress("ingest", len(verdicts)) as progress,
    ):
        for batch in batches:
            rows = _load(batch)
            captions, refused = _split(rows, verdicts[first_row : first_row + rows.num_rows], subset)
            refused_writer.write_table(
                refused.set_column(0, "file", names.take(refused["file"].combine_chunks())).cast(REFUSED)
            )
            name = part_name(len(parts))
            if captions.num_rows:
                parts.append(finished_part(folder, name) or write_part(folder, name, captions))
            reasons = card.add(captions, refused)
            progress.part(name, rows.num_rows, rows.num_rows, captions.num_rows, reasons)
            first_row += rows.num_rows
    card.write(folder, files, layouts, removal, subset)
    return close_stage(folder, parts, card.counts)


def _split(rows: pa.Table, verdicts: Verdicts, subset: Subset | None) -> tuple[pa.Table, pa.Table]:
    """Return the captions that are kept, and the rows that are refused with the reason."""
    reasons = pc.if_else(pa.array(verdicts == DUPLICATE), REPEATED, rows["reason"])
    reasons = pc.if_else(pa.array(verdicts == COLLISION), ANOTHER_ADDRESS, reasons)
    # Rows that can be read but are not kept are shown as they would stand in CC12M's table.
    shown = pc.binary_join_element_wise(pc.coalesce(rows["url"], rows["image"]), rows["caption"], "\t")
    content = pc.coalesce(rows["content"], shown)
    is_kept, caption_ids = verdicts >= 0, verdicts
    if subset:
        is_in, caption_ids = _of_subset(rows, is_kept, subset)
        is_left_out = pa.array(is_kept & ~is_in)
        reasons = pc.if_else(is_left_out, NOT_IN_SUBSET, reasons)
        content = pc.if_else(is_left_out, pa.scalar(None, pa.string()), content)
        is_kept = is_kept & is_in
    captions = rows.append_column("caption_id", pa.array(caption_ids, pa.int32())).filter(pa.array(is_kept))
    refused = pa.table({"file": rows["file"], "line": rows["line"], "reason": reasons, "content": content})
    return captions.select(CAPTIONS.names).cast(CAPTIONS), refused.filter(pa.array(~is_kept))


def _of_subset(
    rows: pa.Table, is_kept: npt.NDArray[np.bool_], subset: Subset
) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.int32]]:
    at = np.flatnonzero(is_kept)
    is_in, caption_ids = np.zeros(len(is_kept), np.bool_), np.zeros(len(is_kept), np.int32)
    is_in[at], caption_ids[at] = subset.caption_ids(
        rows["key"].take(at).to_numpy(), rows["caption_digest"].take(at).to_numpy()
    )
    return is_in, caption_ids


def _load(path: Path) -> pa.Table:
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()
