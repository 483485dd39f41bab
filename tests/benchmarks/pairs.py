"""Curation, pairs: the draw by chance, the search for similar partners, and how partners spread on real captions."""

from __future__ import annotations

import itertools
import os
import random
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from curation.captions import ingest
from curation.draw import Slices, draw_uniform
from curation.images import Samples, write_samples
from curation.manifest import close_stage, open_stage, read_manifest, write_part
from curation.neighbours import Search, exact_bounds, recall_of, rounded, with_ties_broken
from curation.pairs import PairsConfig, read_slices
from curation.parse import parse
from curation.schema import ENTITIES, POSTINGS, SAMPLES, image_key, part_name
from curation.similar import chosen, nearest_slots, preferred
from curation.vocabulary import Vocabulary
from tests.benchmarks.timing import row

NUM_ENTITIES = 73
CAPTIONS = Path(os.environ.get("OVSEG_SHARED", "../shared")) / "real" / "cc3m_val.tsv"


def uniform(folder: Path, num_images: int = 4_300_000) -> Iterator[list[str]]:
    """The draw of 10 partners on two threads against a plain loop on one, and the whole stage."""
    _write_synthetic(folder, num_images)
    samples = Samples(folder / "images")
    _, slices = read_slices(folder, samples)
    slices = slices.shared()
    rows = np.arange(num_images)
    begun = time.perf_counter()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda part: draw_uniform(slices, part, samples.keys[part], 10, 0), np.array_split(rows, 43)))
    ours_s = time.perf_counter() - begun

    members = [slices.rows[slices.starts[e] : slices.starts[e + 1]].tolist() for e in range(NUM_ENTITIES)]
    some = rows[:: max(1, num_images // 100_000)].tolist()
    entities = [slices.entry_codes[slices.row_starts[r] : slices.row_starts[r + 1]].tolist() for r in some]
    begun = time.perf_counter()
    for r, own in zip(some, entities, strict=True):
        for _ in range(10) if own else ():
            same = members[random.choice(own)]
            while random.choice(same) == r:
                pass
    loop_s = (time.perf_counter() - begun) * num_images / len(some)
    yield row(f"draw 10 partners each of {num_images:,} images", num_images, ours_s, "images", "plain loop", loop_s)
    seconds, megabytes = _stage(folder, PairsConfig(vectors=None, sheet_entities=0))
    yield [f"stage pairs, uniform, {num_images:,} images, no vectors", seconds, f"{megabytes:,.0f} MB", ""]


def similar(folder: Path, sizes: tuple[int, ...] = (250_000, 500_000, 1_000_000)) -> Iterator[list[str]]:
    """The whole stage with 10 similar partners each, at three sizes, and its recall on 10,000 images at the largest."""
    for num_images in sizes:
        data_dir = folder / str(num_images)
        write_captions(data_dir, num_images)
        config = PairsConfig(kind="similar", sheet_entities=0)
        seconds, megabytes = _stage(data_dir, config)
        counts = read_manifest(data_dir / "pairs").counts
        found = [
            f"{what} {counts[f'{what}, found'] / counts[f'{what}, sought on sampled images']:.3f}"
            for what in ("nearest within entities", "nearest by free search")
            if f"{what}, found" in counts
        ]
        yield [
            f"stage pairs, similar, {num_images:,} images",
            seconds,
            f"{megabytes:,.0f} MB; recall {', '.join(found)}",
            "",
        ]
    yield ["recall within entities by distance, 10,000 images", f"{recall(data_dir, config, 10_000):.4f}", "exact", ""]


def recall(data_dir: Path, config: PairsConfig, num_queries: int) -> float:
    """Return the share of the exactly nearest that the stage's search finds for images drawn at random."""
    samples = Samples(data_dir / "images")
    _, slices = read_slices(data_dir, samples)
    slices = slices.shared()
    vectors = np.load(data_dir / "pairs" / "vectors.npy", mmap_mode="r")
    entries = np.random.default_rng(0).choice(len(slices.entry_slots), num_queries, replace=False)
    codes = slices.entry_codes[entries]
    found = asked = 0
    for code in np.unique(codes).tolist():
        own = slices.rows[slices.starts[code] : slices.starts[code + 1]]
        candidates = with_ties_broken(vectors[own], samples.keys[own], config.seed)
        search = Search(candidates, config.num_nearest + 1, config.min_recall)
        asking = slices.entry_rows[entries[codes == code]]
        queries = with_ties_broken(vectors[asking], samples.keys[asking], config.seed + 1)
        each = recall_of(search(queries)[0], exact_bounds(candidates, queries, search.num_nearest))
        found, asked = found + each.found, asked + each.asked
    return found / asked


def spread(folder: Path) -> Iterator[list[str]]:
    """How many different partners entities use and how often one image serves, by kind of vector, on real captions."""
    ingest(CAPTIONS, folder)
    parse(folder)
    _store_all(folder)
    samples = Samples(folder / "images")
    names, slices = read_slices(folder, samples)
    slices = slices.shared()
    rows, keys, config = np.arange(len(samples)), samples.keys, PairsConfig()
    _stage(folder, PairsConfig(kind="similar", sheet_entities=0))
    has_entity = np.zeros((len(samples), len(names)), np.float32)
    has_entity[slices.entry_rows, slices.entry_codes] = 1
    words = np.load(folder / "pairs" / "vectors.npy")
    yield _spread("uniform", slices, draw_uniform(slices, rows, keys, 10, 0))
    yield _spread("entity vectors, first of equals", slices, _first_nearest(slices, has_entity))
    for what, vectors, cap in (
        ("entity vectors, equals in hashed order", rounded(has_entity), None),
        ("words (tf-idf)", words, None),
        ("words (tf-idf), max_serves=20", words, 20),
    ):
        nearest, _ = nearest_slots(slices, vectors, keys, config.num_nearest, 0.97, 0, names, folder / what)
        preferences = preferred(slices, nearest, rows, keys, config.num_nearest, 0)
        granted = chosen(preferences, slices, keys, 10, cap, 0)
        yield _spread(what, slices, np.where(granted, preferences, -1))


def _spread(what: str, slices: Slices, slots: np.ndarray) -> list[str]:
    serves = np.bincount(slots[slots >= 0], minlength=len(slices.rows))
    sizes = np.diff(slices.starts)
    different = np.array([(serves[a:b] > 0).sum() for a, b in zip(slices.starts, slices.starts[1:], strict=False)])
    share = np.median(different[sizes > 50] / sizes[sizes > 50])
    largest = np.bincount(slices.rows, serves).max()
    return [
        f"partners of {len(slices.row_starts) - 1:,} images: {what}",
        f"{100 * share:.0f} % of an entity's images serve (median of entities above 50 images)",
        f"one image serves in at most {largest:,.0f} pairs",
        "",
    ]


def _first_nearest(slices: Slices, vectors: np.ndarray) -> np.ndarray:
    """Return the 10 nearest of each row's first entity, among equals the first: what a plain search answers."""
    slots = np.full((len(vectors), 10), -1, np.int64)
    for r in range(len(vectors)):
        own = slices.entry_slots[slices.row_starts[r] : slices.row_starts[r + 1]]
        if len(own):
            code = slices.codes[own[0]]
            first, last = slices.starts[code], slices.starts[code + 1]
            order = np.argsort(-(vectors[slices.rows[first:last]] @ vectors[r]), kind="stable")[:11] + first
            order = order[order != own[0]][:10]
            slots[r, : len(order)] = order
    return slots


def write_captions(data_dir: Path, num_images: int) -> None:
    """Write images/ and postings/ of captions drawn word by word from the pairs of words of real captions."""
    generator = random.Random(0)
    following: dict[str, list[str]] = defaultdict(list)
    for line in CAPTIONS.read_text(encoding="utf-8").splitlines():
        words = ["", *line.split("\t")[0].split(), ""]
        for word, after in itertools.pairwise(words):
            following[word].append(after)
    vocabulary = Vocabulary.load("cc4m")
    entity_of = {form: vocabulary.entity(form) for form in vocabulary.forms}
    texts: list[str] = []
    named: list[list[str]] = []
    while len(texts) < num_images:
        words, word = [], generator.choice(following[""])
        while word and len(words) < 40:
            words.append(word)
            word = generator.choice(following[word])
        if entities := sorted({entity_of[word] for word in words if word in entity_of}):
            texts.append(" ".join(words))
            named.append(entities)
    keys = np.array([image_key(str(number)) for number in range(num_images)])
    order = np.argsort(keys)
    captions = pa.array([[{"text": texts[number]}] for number in order], SAMPLES.field("captions").type)
    names = sorted({entity for entities in named for entity in entities})
    numbers = {name: number for number, name in enumerate(names)}
    codes = np.array([numbers[entity] for entities in named for entity in entities])
    rows = np.repeat(np.arange(num_images), [len(entities) for entities in named])
    _write_images(data_dir, keys[order], captions)
    _write_postings(data_dir, names, codes, keys[rows])


def _write_synthetic(data_dir: Path, num_images: int) -> None:
    """Write images/ and postings/ with 1.2 entities an image, the n-th most frequent with weight 1 / n."""
    generator = np.random.default_rng(0)
    weights = 1 / np.arange(1, NUM_ENTITIES + 1)
    codes = generator.choice(NUM_ENTITIES, size=num_images * 6 // 5, p=weights / weights.sum())
    keys = np.unique(generator.integers(2**63, size=num_images + 1000))
    keys = generator.permutation(keys)[:num_images]
    rows = np.concatenate([np.arange(num_images), generator.integers(num_images, size=len(codes) - num_images)])
    _write_images(data_dir, np.sort(keys), pa.nulls(num_images, SAMPLES.field("captions").type))
    _write_postings(data_dir, [f"entity {code:02d}" for code in range(NUM_ENTITIES)], codes, keys[rows])


def _store_all(data_dir: Path) -> None:
    """Write images/ as if every image of entities/ were stored."""
    parts = read_manifest(data_dir / "entities").parts
    table = pa.concat_tables([pq.read_table(data_dir / "entities" / part.name, schema=ENTITIES) for part in parts])
    keys, first = np.unique(table["key"].to_numpy(), return_index=True)
    texts = table["caption"].take(pa.array(first)).to_pylist()
    _write_images(data_dir, keys, pa.array([[{"text": text}] for text in texts], SAMPLES.field("captions").type))


def _write_images(data_dir: Path, keys: np.ndarray, captions: pa.Array) -> None:
    columns = {field.name: pa.nulls(len(keys), field.type) for field in SAMPLES}
    open_stage(data_dir / "images", "download", {}, {})
    table = pa.table({**columns, "key": keys, "captions": captions}, schema=SAMPLES)
    write_samples(data_dir / "images", [table.slice(n, 100_000) for n in range(0, len(keys), 100_000)], "digest")
    close_stage(data_dir / "images", [])


def _write_postings(data_dir: Path, names: list[str], codes: np.ndarray, keys: np.ndarray) -> None:
    order = np.argsort(codes, kind="stable")
    entities = pa.DictionaryArray.from_arrays(codes[order].astype(np.int32), pa.array(names)).cast(pa.string())
    zeros = pa.array(np.zeros(len(codes), np.int32))
    table = pa.table([entities, keys[order], zeros, zeros], schema=POSTINGS)
    open_stage(data_dir / "postings", "postings", {}, {})
    close_stage(data_dir / "postings", [write_part(data_dir / "postings", part_name(0), table)])


def _stage(data_dir: Path, config: PairsConfig) -> tuple[str, float]:
    """Return the seconds, of wall and of CPU, and the most MB of memory of the stage in a process of its own."""
    code = (
        "import pathlib, time; from curation.pairs import PairsConfig, build_pairs; "
        "from tests.benchmarks.memory import peak_gb; "
        f"build_pairs(pathlib.Path({str(data_dir)!r}), PairsConfig(**{asdict(config)!r})); "
        "print(time.process_time(), peak_gb())"
    )
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    cpu_s, peak = map(float, done.stdout.split())
    return f"{time.perf_counter() - begun:.0f} s, {cpu_s:.0f} of CPU", peak * 1024
