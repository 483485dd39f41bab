"""Ingest of a long table; the entity index at the size of CC4M: 4.3 million captions, 73 entities, 1.3 of them each."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa

from curation.entities import ROW_GROUP_ROWS, VOCABULARY_NAME, EntityIndex, write_postings
from curation.manifest import close_stage, open_stage, write_part
from curation.schema import ENTITIES, part_name
from curation.vocabulary import Vocabulary, vocabulary_path
from tests.benchmarks.timing import median_s, row

NUM_CAPTIONS = 4_300_000
PART_ROWS = 35_000
"""what is left of 100,000 lines of CC12M"""
CAPTION_WORDS = 20


INGEST = """
import sys, time
from pathlib import Path
from curation.captions import ingest
from tests.benchmarks.memory import peak_gb
begun = time.perf_counter()
ingest(sys.argv[1], Path(sys.argv[2]))
print(time.perf_counter() - begun, time.process_time(), peak_gb() * 1024)
"""


def ingest(folder: Path) -> Iterator[list[str]]:
    """Rows per second and the most memory of an ingest, of a short and of a long table, each in its own process."""
    for num_rows in (100_000, 2_000_000):
        table = folder / f"{num_rows}.tsv"
        write_table(table, num_rows)
        command = [sys.executable, "-c", INGEST, str(table), str(folder / str(num_rows))]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        wall_s, cpu_s, most_mb = (float(figure) for figure in done.stdout.split())
        figures = f"{num_rows / wall_s:,.0f} rows/s, {num_rows / cpu_s:,.0f} per CPU second, {most_mb:.0f} MB at most"
        yield [f"ingest of {num_rows:,} rows, {table.stat().st_size / 1e6:.0f} MB", figures, "", ""]


def write_table(path: Path, num_rows: int) -> None:
    """Write a table as CC12M's with captions of random words."""
    rng = np.random.default_rng(0)
    words = np.array([f"w{number}" for number in range(5000)], np.object_)
    with path.open("w") as file:
        for start in range(0, num_rows, 10_000):
            texts = words[rng.integers(len(words), size=(10_000, CAPTION_WORDS))]
            file.writelines(
                f"https://images.host{number % 9973}.example/some/path/of/an/image/{number}.jpg\t{' '.join(text)}\n"
                for number, text in enumerate(texts, start=start)
            )


def query(folder: Path) -> Iterator[list[str]]:
    """Milliseconds, warm, of queries, counts and co-occurrence; bytes a row; the median of five rounds."""
    write_entities(folder)
    begun = time.perf_counter()
    write_postings(folder)
    yield row("index: postings built from entities/", NUM_CAPTIONS, time.perf_counter() - begun, "captions")
    for name in ("entities", "postings"):
        size = sum(path.stat().st_size for path in (folder / name).glob("*.parquet"))
        yield [f"index: {name}/", f"{size / NUM_CAPTIONS:.1f} bytes a caption", "", ""]
    index = EntityIndex(folder)
    most, _, _, fourth, *_, last = index.counts()["entity"].to_pylist()
    for title, ask in {
        "open": lambda: EntityIndex(folder),
        "two frequent entities, limit 20, whole rows": lambda: index.query(f'"{most}" and "{fourth}"', limit=20),
        "a frequent and the rarest entity, limit 20, whole rows": lambda: index.query(
            f'"{most}" and "{last}"', limit=20
        ),
        "random 20 of those rows": lambda: index.sample(20, 7, f'"{most}" and "{fourth}"'),
        "count of a conjunction": lambda: index.count(f'"{most}" and "{fourth}"'),
        "counts of all entities": index.counts,
        "pairs of entities": index.together,
        "entities beside another": lambda: index.together(f'"{fourth}"'),
    }.items():
        (ours_s,) = median_s(ask)
        yield [f"index: {title}", f"{1000 * ours_s:.1f} ms", "", ""]


def write_entities(folder: Path, num_captions: int = NUM_CAPTIONS) -> None:
    """Write entities/ with captions of random words, their entities by Zipf's law."""
    rng = np.random.default_rng(0)
    names = np.array(Vocabulary.load("cc4m").entities, np.object_)
    shares = 1 / np.arange(1, len(names) + 1)
    words = np.array(
        [f"{stem}{end}" for stem in names for end in ("", "s", "ing", "ed", "ly", "er", "ish")], np.object_
    )
    open_stage(folder / "entities", "parse", {}, {})
    shutil.copyfile(vocabulary_path("cc4m"), folder / "entities" / VOCABULARY_NAME)
    parts = []
    for number, start in enumerate(range(0, num_captions, PART_ROWS)):
        size = min(PART_ROWS, num_captions - start)
        codes = rng.choice(len(names), (size, 3), p=shares / shares.sum())
        wanted = 1 + rng.choice(3, size, p=[0.75, 0.2, 0.05])
        # A second draw of the same entity leaves the caption with one fewer.
        entities = [list(dict.fromkeys(names[row[:count]])) for row, count in zip(codes, wanted, strict=True)]
        texts = words[rng.integers(len(words), size=(size, CAPTION_WORDS))]
        captions = [f"{' '.join(text)} {' and '.join(named)}" for text, named in zip(texts, entities, strict=True)]
        mentions = [
            [{"entity": name, "start": (at := caption.rindex(name)), "end": at + len(name)} for name in named]
            for caption, named in zip(captions, entities, strict=True)
        ]
        keys = rng.integers(1 << 63, size=size)
        columns = {
            "key": keys,
            "caption_id": np.zeros(size, np.int32),
            "url": [f"https://images.host{key % 99991}.example/{key:x}/{key % 997}.jpg" for key in keys.tolist()],
            "image": pa.nulls(size, pa.string()),
            "caption": captions,
            "entities": entities,
            "mentions": mentions,
        }
        table = pa.table(columns, schema=ENTITIES)
        parts.append(write_part(folder / "entities", part_name(number), table, row_group_size=ROW_GROUP_ROWS))
    close_stage(folder / "entities", parts)
