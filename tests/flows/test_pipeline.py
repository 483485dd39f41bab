"""The whole pipeline on a handful of scenes through every real part, killed on the way and started again."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest

from curation.images import Samples
from curation.manifest import read_manifest
from curation.schema import file_digest
from flows.pipeline import _keep_config
from flows.recipes_small import demo, demo_debug

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("captions", "entities", "images", "pairs")


def start(out: Path | str, *settings: str, home: Path | None = None) -> subprocess.Popen[str]:
    """Start a run at `out`; its log, and what Prefect keeps, are in `home`, by default the folder above."""
    home = home or Path(out).parent
    command = [sys.executable, "-m", "flows.cli", "run", "demo-debug", "--out", str(out), *settings]
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_API", "RAY_ADDR"))
    }
    environment |= {"PREFECT_HOME": str(home / "prefect"), "PYTHONPATH": str(ROOT)}
    with (home / "log.txt").open("a") as log:
        return subprocess.Popen(
            command, cwd=home, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def finish(run: subprocess.Popen[str], home: Path, within_s: float = 1200) -> str:
    code = run.wait(timeout=within_s)
    log = (home / "log.txt").read_text()
    assert code == 0, log[-5000:]
    return log


def kill_when(run: subprocess.Popen[str], seen: Callable[[], object], within_s: float = 1200) -> None:
    """Kill the run's first process, and it alone, as soon as `seen` says so."""
    descendants: set[psutil.Process] = set()
    deadline = time.monotonic() + within_s
    while not seen():
        assert run.poll() is None, "the run ended before it could be killed"
        assert time.monotonic() < deadline, "the run did not come so far in time"
        descendants |= set(psutil.Process(run.pid).children(recursive=True))
        time.sleep(0.2)
    run.send_signal(signal.SIGKILL)
    run.wait()
    _, alive = psutil.wait_procs(descendants, timeout=15)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE], "the killed run left orphans"


def made(out: Path) -> dict[str, int]:
    """Return when each finished stage was finished."""
    paths = [out / "data" / stage / "manifest.json" for stage in STAGES] + [
        out / "phase1/run.json",
        out / "phase2/run.json",
    ]
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in paths if path.exists()}


def results(out: Path) -> dict[str, Any]:
    """Return what must be equal between two runs of one config."""
    evaluation = json.loads((out / "evaluation/evaluation.json").read_text())
    steps = [json.loads(line) for line in (out / "phase2/metrics.jsonl").read_text().splitlines()]
    return {
        "keys": Samples(out / "data/images").keys.tolist(),
        "captions": read_manifest(out / "data/captions").digest,
        "entities": read_manifest(out / "data/entities").digest,
        "pairs": read_manifest(out / "data/pairs").digest,
        "weights": [file_digest(out / f"phase{number}/model/model.safetensors") for number in (1, 2)],
        "losses": [(step["step"], step["total"]) for step in steps],
        "miou": {row["name"]: row["miou"] for row in evaluation["results"]},
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the debug demo once, killed in the middle of phase 1 on the way."""
    out = tmp_path_factory.mktemp("pipeline") / "run"
    run = start(out)
    kill_when(run, lambda: any((out / "phase1/checkpoints").glob("*")))
    before = made(out)
    assert len(before) >= 3, f"finished before the kill: {before}"
    log = finish(start(out), out.parent)
    after = made(out)
    assert {name: after[name] for name in before} == before, "a finished stage was done again"
    assert "report:" in log
    assert "mIoU" in log
    return out


@pytest.mark.timeout(600)
def test_a_killed_run_goes_on_and_ends_with_a_report(finished: Path) -> None:
    page = (finished / "report" / "index.html").read_text()
    assert "its figures mean nothing" in page
    assert len(made(finished)) == 6


def test_nothing_is_lost_between_the_stages(finished: Path) -> None:
    data = finished / "data"
    captions, entities = read_manifest(data / "captions"), read_manifest(data / "entities")
    refused = pq.read_table(data / "captions" / "refused.parquet").num_rows
    lines = len((finished / "scenes" / "captions.tsv").read_text().splitlines()) - 1
    assert captions.rows + refused == lines
    dropped = sum(count for reason, count in entities.counts.items() if reason.startswith("no "))
    assert entities.rows + dropped == captions.rows
    images = {
        key for part in (data / "entities").glob("part-*.parquet") for key in pq.read_table(part)["key"].to_pylist()
    }
    failures = pq.read_table(data / "images" / "failures.parquet").num_rows
    assert read_manifest(data / "images").rows + failures == len(images)
    assert failures > 0, "the demo has dead addresses"


def test_a_finished_run_is_not_repeated(finished: Path) -> None:
    before = made(finished)
    page = (finished / "report" / "index.html").read_text()
    finish(start(finished), finished.parent)
    assert made(finished) == before
    assert (finished / "report" / "index.html").read_text() == page


def test_other_settings_in_the_same_folder_are_refused(tmp_path: Path) -> None:
    _keep_config(demo_debug(), tmp_path)
    _keep_config(demo_debug(), tmp_path)
    with pytest.raises(
        ValueError, match=r"begun with other settings of title, caveat, scenes, phase1, phase2; give the"
    ):
        _keep_config(demo(), tmp_path)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(
    "moment",
    [
        "scenes/parts",
        "data/captions/started.json",
        "data/entities/started.json",
        "data/images/started.json",
        "data/pairs/started.json",
        "phase1/checkpoints/*",
        "phase2/checkpoints/*",
        "evaluation/started.json",
        "evaluation/evaluation.json",
    ],
)
def test_a_kill_in_any_stage_changes_no_result(moment: str, tmp_path: Path, finished: Path) -> None:
    out = tmp_path / "run"
    kill_when(start(out), lambda: any(out.glob(moment)))
    before = made(out)
    finish(start(out), out.parent)
    assert {name: made(out)[name] for name in before} == before, "a finished stage was done again"
    assert results(out) == results(finished)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_run_in_an_object_store_killed_and_resumed_elsewhere_gives_the_results_of_a_run_on_disk(
    bucket: str, store: Any, tmp_path: Path, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def is_under_way() -> bool:
        store.invalidate_cache()
        return bool(store.find(f"{bucket}/run/phase1/checkpoints"))

    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "one machine"))
    settings = "--set", "download_on_ray=true"  # which changes no result
    kill_when(start(f"{bucket}/run", *settings, home=tmp_path), is_under_way)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "another"))
    log = finish(start(f"{bucket}/run", *settings, home=tmp_path), tmp_path)
    assert log.count("storage  download") == 2
    assert not (tmp_path / "s3:").exists()
    store.get(f"{bucket}/run/", f"{tmp_path / 'stored'}/", recursive=True)
    assert results(tmp_path / "stored") == results(finished)
    assert (tmp_path / "stored" / "report" / "index.html").stat().st_size > 10_000
