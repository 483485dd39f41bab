"""Parse: captions per second of CPU from text to written Parquet, on real captions joined to the length of CC12M's.

`OVSEG_BENCH_CAPTIONS` is the number of captions (default 100,000); a twentieth of it is parsed too, which shows how the
time grows. No answer is remembered between captions, so it does no harm that the same real captions recur.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import spacy

from curation.captions import ingest
from curation.exact import ExactRule
from curation.parse import CaptionParser, ParseConfig, parse
from curation.tagger import SPACY_MODELS, installed_model
from curation.vocabulary import Vocabulary
from tests.benchmarks.memory import peak_gb
from tests.conftest import ABSENT, SHARED

NUM_CAPTIONS = int(os.environ.get("OVSEG_BENCH_CAPTIONS", "100000"))
HIT_RATE = 0.35
NUM_WORDS = 20
"""Words (tokens between spaces) of a caption of CC12M on average."""
_PUNCTUATION = re.compile(r" ([,.;:!?)]|'s\b)")

SAMPLE = 2000
"""Captions that spaCy's whole pipeline is timed on."""


def long_captions(count: int) -> Iterator[str]:
    """Yield captions of about 20 words, 35 % of which hold a form: the same for each call.

    They are real ones, joined, with punctuation as in CC12M; the originals have it cut off by spaces.
    """
    lines = (SHARED / "real" / "cc3m_val.tsv").read_text().splitlines()
    real = [line.split("\t")[0] for line in lines]
    vocabulary = Vocabulary.load("cc4m")
    with_form = [caption for caption in real if vocabulary.find(caption)]
    without = [caption for caption in real if not vocabulary.find(caption)]
    rng = random.Random(0)
    for _ in range(count):
        pieces = [rng.choice(with_form if rng.random() < HIT_RATE else without)]
        wanted = rng.gauss(NUM_WORDS - 5, 5)
        while sum(piece.count(" ") + 1 for piece in pieces) < wanted:
            pieces.append(rng.choice(without))
        rng.shuffle(pieces)
        yield _PUNCTUATION.sub(r"\1", " ".join(pieces))


def parse_long(folder: Path) -> Iterator[list[str]]:
    """Rate, growth and memory of the stage; the ratio to spaCy's whole pipeline; what the time goes into."""
    if not (SHARED / "real").is_dir():
        yield ["parse captions of CC12M's length", "left out", ABSENT, ""]
        return
    sample = list(long_captions(SAMPLE))
    words = sum(caption.count(" ") + 1 for caption in sample) / SAMPLE
    whole = spacy.load(installed_model(SPACY_MODELS)[0])
    list(whole.pipe(sample[:200]))
    rates = {}
    for count in (NUM_CAPTIONS // 20, NUM_CAPTIONS):
        parse_s, wall_s, peak_gb, kept = _apart(folder / str(count), count)
        whole_s = _cpu_s(lambda: list(whole.pipe(sample))) / SAMPLE
        rates[count] = count / parse_s
        yield [
            f"parse {count:,} captions of {words:.1f} words, text to Parquet, per CPU second; {kept / count:.0%} kept",
            f"{rates[count]:,.0f} captions/s (wall {count / wall_s:,.0f})",
            f"spaCy, all components: {1 / whole_s:,.0f}",
            f"{rates[count] * whole_s:.1f}",
        ]
        yield [f"parse {count:,} captions, peak memory of the process", f"{peak_gb:.2f} GB", "", ""]
    yield from _where_time_goes(list(long_captions(min(NUM_CAPTIONS, 20_000))), rates[NUM_CAPTIONS])


def _where_time_goes(captions: list[str], rate: float) -> Iterator[list[str]]:
    vocabulary = Vocabulary.load("cc4m")
    exact, parser = ExactRule(vocabulary), CaptionParser(vocabulary)
    parser.read(captions[:200])
    hits = [caption for caption in captions if vocabulary.find(caption)]
    scan_s = _cpu_s(lambda: [vocabulary.occurrences(caption) for caption in captions])
    read_s = _cpu_s(lambda: parser.read(captions))
    exact_s = _cpu_s(lambda: [exact.parse(caption) for caption in hits])
    all_s = len(captions) / rate
    tagged = sum(reading.was_tagged for reading in parser.read(captions)) / len(captions)
    shares = [
        f"scan for forms and phrases {scan_s / all_s:.0%}",
        f"tagger {(read_s - scan_s) / all_s:.0%} ({tagged:.1%} of captions)",
        f"published rule {exact_s / all_s:.0%}",
        f"counts, Parquet, postings {1 - (read_s + exact_s) / all_s:.0%}",
    ]
    yield ["parse: what the time goes into", ", ".join(shares), "", ""]


def _parse_stage(folder: Path, count: int) -> tuple[float, float, float, int]:
    """Return CPU and wall seconds, the largest resident memory (GB) and the captions kept, model load left out."""
    folder.mkdir()
    table = folder / "captions.tsv"
    with table.open("w") as file:
        file.writelines(f"http://a/{number}\t{caption}\n" for number, caption in enumerate(long_captions(count)))
    ingest(table, folder)
    CaptionParser(Vocabulary.load("cc4m")).parse(["the orange light"])
    begun, cpu_begun = time.perf_counter(), time.process_time()
    kept = parse(folder, ParseConfig()).rows
    cpu_s, wall_s = time.process_time() - cpu_begun, time.perf_counter() - begun
    return cpu_s, wall_s, peak_gb(), kept


def _apart(folder: Path, count: int) -> tuple[float, float, float, int]:
    """Return what `_parse_stage` does, from a process of its own, so that memory is that of the work alone."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_parse_stage, (folder, count))


def _cpu_s(function: Callable[[], object]) -> float:
    begun = time.process_time()
    function()
    return time.process_time() - begun
