"""Training: where the time of a step of the demo's recipe goes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from flows.recipes import demo
from tests.benchmarks.curation import make_images
from training.loop import train_here
from training.phase import Phase


def step(folder: Path) -> Iterator[list[str]]:
    """Images per second of phase 1, and the share of its time spent waiting for data."""
    make_images(folder)
    recipe = demo()
    config = replace(recipe.phase1, steps=60, checkpoint_every=60, validation=None)
    train_here(Phase(folder, folder / "phase1", recipe.model, config))
    lines = [json.loads(line) for line in (folder / "phase1" / "metrics.jsonl").read_text().splitlines()][10:]
    seconds = sum(config.batch_size / line["samples_per_s"] for line in lines)
    waited = sum(line["waited_s"] for line in lines)
    images = config.batch_size * len(lines)
    yield [
        "phase 1 of the demo, batch 64, 2 threads",
        f"{images / seconds:,.0f} images/s",
        "waiting for data",
        f"{waited / seconds:.1%}",
    ]
