"""Run the benchmarks, all or those of the rooms named, and print their figures as Markdown: `make bench`.

No figure here is a test.
"""

from __future__ import annotations

import logging
import platform
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import curation, evaluation, images, index, model, pairs, training

ROOMS = ("curation", "index", "images", "pairs", "model", "training", "evaluation")
BENCHES = (
    curation.parse, curation.download, curation.read,
    index.ingest, index.query,
    images.download, images.memory, images.near_duplicates,
    pairs.uniform, pairs.similar, pairs.spread,
    model.train, model.infer, model.where_time_goes,
    training.loader, training.step, training.step_of_vit_s,
    evaluation.speed, evaluation.memory,
)  # fmt: skip

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}\n")
    print("| what | figure | against | ratio |\n| --- | --- | --- | --- |")
    chosen = [bench for bench in BENCHES if bench.__module__.rsplit(".", 1)[1] in (sys.argv[1:] or ROOMS)]
    for bench in chosen:
        with tempfile.TemporaryDirectory() as folder:
            for row in bench(Path(folder)):
                print("| " + " | ".join(row) + " |")
                sys.stdout.flush()
