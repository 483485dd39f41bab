"""Parts as tasks of a real Ray cluster on this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from curation.captions import IngestConfig, ingest
from curation.manifest import read_manifest
from curation.parse import parse
from flows.parts import map_by_ray

CAPTIONS = ["a cat on a sofa", "two dogs near a light blue bus", "nothing to see", "a man with an umbrella"] * 5
PARSE = """
import sys
from pathlib import Path
from curation.parse import parse
from flows.parts import map_by_ray
parse(Path(sys.argv[1]), map_parts=map_by_ray)
"""


@pytest.fixture
def captions_dir(tmp_path: Path) -> Path:
    table = tmp_path / "captions.tsv"
    rows = [f"http://127.0.0.1/{number}.jpg\t{caption}" for number, caption in enumerate(CAPTIONS)]
    table.write_text("\n".join(["url\tcaption", *rows]) + "\n")
    return table


def ingested(table: Path, data_dir: Path) -> Path:
    ingest(table, data_dir, IngestConfig(part_rows=8))
    return data_dir


def test_parts_parsed_by_ray_tasks_are_those_of_one_process_also_after_a_kill(
    captions_dir: Path, tmp_path: Path
) -> None:
    alone, by_ray = ingested(captions_dir, tmp_path / "alone"), ingested(captions_dir, tmp_path / "by_ray")
    expected = parse(alone)
    assert len(expected.parts) == 3
    command = [sys.executable, "-c", PARSE, str(by_ray)]
    killed = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])})
    while not list((by_ray / "entities").glob("part-*.json")) and killed.poll() is None:
        pass
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert parse(by_ray, map_parts=map_by_ray).digest == expected.digest
    assert read_manifest(by_ray / "postings").digest == read_manifest(alone / "postings").digest


def test_a_single_part_needs_no_cluster() -> None:
    assert list(map_by_ray(os.path.basename, ["folder/name"])) == ["name"]
