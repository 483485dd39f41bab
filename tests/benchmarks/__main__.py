"""Run the benchmarks and print their figures as Markdown: `make bench`. No figure here is a test."""

from __future__ import annotations

import logging
import platform
import sys
import tempfile
from pathlib import Path

from tests.benchmarks import curation, training

if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    print(f"{platform.python_implementation()} {platform.python_version()}, {platform.machine()}\n")
    print("| what | figure | against | ratio |\n| --- | --- | --- | --- |")
    for bench in (curation.parse, curation.draw, curation.download, curation.read, training.step):
        with tempfile.TemporaryDirectory() as folder:
            for row in bench(Path(folder)):
                print("| " + " | ".join(row) + " |")
                sys.stdout.flush()
