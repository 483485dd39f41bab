"""prefect.yaml, generated from the recipes and the stages: what `prefect deploy --all` registers.

Run `python -m flows.deployments` after a change of recipes or stages; a test holds the file and the recipes together.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from inspect import cleandoc
from pathlib import Path
from typing import Any

import yaml
from prefect import Flow

from curation.captions import IngestConfig
from curation.download import DownloadConfig
from curation.embeddings import EmbedConfig
from curation.pairs import PairsConfig
from curation.parse import ParseConfig
from evaluation.benchmarks import BENCHMARKS
from evaluation.config import Protocol
from flows.config import PipelineConfig, with_benchmark
from flows.download import download
from flows.embed import embed
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.pairs import pairs
from flows.parse import parse
from flows.pipeline import pipeline, scenes
from flows.recipes import ABLATED, RECIPES
from flows.report import report
from flows.train import train
from model import ModelConfig
from training.config import TrainConfig

PATH = Path(__file__).resolve().parents[1] / "prefect.yaml"
POOL = "local"
STAGE = "stage"
"""name of the deployment of a stage on data of your own"""
OWN: dict[Flow[..., Any], dict[str, Any]] = {
    ingest: {"config": IngestConfig()},
    parse: {"config": ParseConfig()},
    download: {"config": DownloadConfig()},
    embed: {"config": EmbedConfig()},
    pairs: {"config": PairsConfig()},
    train: {"model": ModelConfig(), "config": TrainConfig()},
    evaluate: {"protocol": Protocol()},
    report: {},
}
"""stage -> the settings that its form begins with; folders are asked for"""
WHOLE = ("cc4m", "cc12m")
"""recipes whose data take days, so that each stage is a deployment too"""
TRAINED = {"vit-s": "cc4m-vit-s", "vit-b": "cc4m"}
"""model -> recipe whose phases are deployments too"""


def deployments() -> dict[str, Any]:
    """Return the content of prefect.yaml: the recipes as pipelines, the stages, the paper's phases, the benchmarks."""
    own = [_deployment(stage, STAGE, values, ["stage"]) for stage, values in OWN.items()]
    return {
        "name": "ovsegmentor",
        # The worker runs flows in the folder that it was deployed from: this one.
        "pull": [{"prefect.deployments.steps.set_working_directory": {"directory": "{{ $PWD }}"}}],
        "deployments": [*_recipes(), *own, *_data_stages(), *_phases(), *_benchmarks()],
    }


def _recipes() -> Iterator[dict[str, Any]]:
    for name, recipe in RECIPES.items():
        if name.removesuffix("-debug") not in ABLATED:  # of interest to few: `ovseg run` knows them
            config = recipe(0)
            values = {"config": config, "out": f"runs/{name}"}
            yield _deployment(pipeline, name, values, ["pipeline", *_needs(config)], cleandoc(recipe.__doc__ or ""))
    yield _deployment(scenes, "demo", {"config": RECIPES["demo"](0).scenes, "out_dir": "runs/demo/scenes"}, ["stage"])


def _data_stages() -> Iterator[dict[str, Any]]:
    for name in WHOLE:
        config, data = RECIPES[name](0), {"data_dir": f"runs/{name}/data"}
        yield _deployment(ingest, name, {"table": config.table, **data, "config": config.ingest}, ["stage", "web"])
        yield _deployment(parse, name, {**data, "config": config.parse}, ["stage"])
        yield _deployment(download, name, {**data, "config": config.download}, ["stage", "web"])
        yield _deployment(pairs, name, {**data, "config": config.pairs}, ["stage"])


def _phases() -> Iterator[dict[str, Any]]:
    for model, name in TRAINED.items():
        recipe = RECIPES[name](0)
        for phase in (recipe.phase1, recipe.phase2):
            assert phase is not None
            values = {
                "data_dir": "runs/cc4m/data",
                "run_dir": f"runs/{name}/phase{phase.phase}",
                "model": recipe.model,
                "config": with_benchmark(phase, recipe, None),  # whoever has a benchmark's folder may watch by it
                "init_from": f"runs/{name}/phase1/model" if phase.phase == 2 else None,
            }
            yield _deployment(train, f"{model}-phase{phase.phase}", values, ["stage", "gpu"])


def _benchmarks() -> Iterator[dict[str, Any]]:
    for name, benchmark in BENCHMARKS.items():
        values = {
            "model_dirs": {"model": "runs/cc4m-vit-s/phase2/model"},
            "benchmark": name,
            "root": f"benchmarks/{name}",
            "out_dir": f"runs/cc4m-vit-s/evaluation-{name}",
            "protocol": Protocol(),
        }
        text = f"{cleandoc(evaluate.fn.__doc__ or '')}\n\nBenchmark: {benchmark.title}."
        yield _deployment(evaluate, name.replace("_", "-"), values, ["stage", "benchmark"], text)


def _needs(config: PipelineConfig) -> list[str]:
    return ["gpu"] * config.phase1.launch.use_gpu + ["web"] * (config.table == "cc12m")


def _deployment(
    flow: Flow[..., Any], name: str, values: dict[str, Any], tags: list[str], text: str | None = None
) -> dict[str, Any]:
    module = flow.fn.__module__.replace(".", "/")
    return {
        "name": name,
        "entrypoint": f"{module}.py:{flow.fn.__name__}",
        "description": text or cleandoc(flow.fn.__doc__ or ""),
        "tags": tags,
        "work_pool": {"name": POOL},
        "parameters": {key: _plain(value) for key, value in values.items()},
    }


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(asdict(value))) if hasattr(value, "__dataclass_fields__") else value


class _Dumper(yaml.SafeDumper):
    """Texts of several lines as blocks, lists of plain values on one line, nothing by reference."""

    def ignore_aliases(self, _: Any) -> bool:
        return True


_Dumper.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)
_Dumper.add_representer(
    list,
    lambda dumper, values: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", values, flow_style=not any(isinstance(value, dict) for value in values)
    ),
)


def text() -> str:
    """Return prefect.yaml as it should stand in the repository."""
    head = "# Generated by `python -m flows.deployments`; edit flows/recipes.py instead.\n"
    return head + yaml.dump(deployments(), Dumper=_Dumper, sort_keys=False, width=120, allow_unicode=True)


if __name__ == "__main__":
    PATH.write_text(text())
