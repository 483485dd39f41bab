"""The whole pipeline as one flow: each stage a subflow, so that Prefect shows the DAG."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Flow, flow

from curation.manifest import replacing
from curation.scenes import ScenesConfig, draw_scenes
from curation.scenes_server import serve_folder, serve_scenes
from flows.config import PipelineConfig, check_benchmark, with_benchmark, without_benchmark_images
from flows.download import download
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.pairs import pairs
from flows.parse import parse
from flows.places import Place, below, on_copies
from flows.report import report
from flows.settings import described
from flows.storage import Needs, working_copy
from flows.train import train

P = ParamSpec("P")
R = TypeVar("R")


@flow(name="scenes", flow_run_name="{out_dir}")
@described
@on_copies
def scenes(out_dir: Place, config: ScenesConfig) -> Path:
    """Draw the scenes, their captions, and the held-out scenes with masks."""
    return draw_scenes(out_dir, config)


@flow(name="pipeline", flow_run_name="{out}")
@described
def pipeline(config: PipelineConfig, out: Place) -> Path:
    """Run every stage that is not finished in `out`, from captions to the report, and return the report's page."""
    check_benchmark(config)
    _keep_config(config, out)
    data_dir = below(out, "data")
    drawn = scenes(below(out, "scenes"), config.scenes) if config.scenes else None
    table = drawn / "captions.tsv" if drawn else config.table or ""
    benchmark_root = drawn / "benchmark" if drawn and not config.benchmark_root else Path(config.benchmark_root or "")

    captions = _after(ingest, drawn)(table, data_dir, config.ingest)
    entities = _after(parse, captions)(data_dir, config.parse)
    with _image_server(config, drawn) as image_root:
        images = _after(download, entities)(
            data_dir, without_benchmark_images(config), image_root, config.download_on_ray
        )
    phase1 = _after(train, images)(
        data_dir, below(out, "phase1"), config.model, with_benchmark(config.phase1, config, benchmark_root)
    )
    trained = {"phase1": phase1}
    if config.phase2 is not None:
        partners = _after(pairs, images)(data_dir, config.pairs)
        trained["phase2"] = _after(train, phase1, partners)(
            data_dir, below(out, "phase2"), config.model, with_benchmark(config.phase2, config, benchmark_root), phase1
        )
    result = _after(evaluate, *trained.values())(
        {name: below(out, f"{name}/model") for name in trained},
        config.benchmark,
        benchmark_root,
        below(out, "evaluation"),
        config.protocol,
        untrained_seed=config.phase1.seed,
    )
    return _after(report, result)(out, config.title, config.caveat)


def _after(stage: Flow[P, R], *upstream: object) -> Callable[P, R]:
    """Return the stage as a function whose run hangs below the upstream results in Prefect's DAG."""
    return partial(cast(Any, stage), wait_for=upstream)


@contextmanager
def _image_server(config: PipelineConfig, drawn: Path | None) -> Iterator[str | None]:
    """Serve the images that are ours to serve, and yield what the captions' image paths are relative to."""
    if config.scenes and drawn:
        with serve_scenes(drawn, config.scenes):
            yield None
    elif config.serve_port and config.image_root:
        with serve_folder(Path(config.image_root), config.serve_port) as address:
            yield address
    else:
        yield config.image_root


def _keep_config(config: PipelineConfig, out: Place) -> None:
    """Write config.json when the run begins; a folder that was begun with another config is refused."""
    wanted = json.loads(json.dumps(asdict(config)))
    with working_copy(out, "pipeline", Needs(writes=("config.json",))) as folder:
        _write_config(wanted, folder / "config.json", out)


def _write_config(wanted: dict[str, Any], path: Path, out: Place) -> None:
    if path.exists():
        found = json.loads(path.read_text())
        if found == wanted:
            return
        names = [name for name in wanted if wanted[name] != found.get(name)]
        raise ValueError(
            f"{path}: this run was begun with other settings of {', '.join(names)}; "
            f"give the same ones to go on, choose another --out, or remove {out}"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(wanted, indent=2))
