from __future__ import annotations

from importlib import import_module
from typing import Any

import pytest
import yaml
from prefect.exceptions import ParameterTypeError

from evaluation.benchmarks import BENCHMARKS
from flows.deployments import OWN, PATH, text
from flows.recipes import ABLATED, RECIPES

DEPLOYMENTS: list[dict[str, Any]] = yaml.safe_load(PATH.read_text())["deployments"]
FOLDERS = {"data_dir": "data", "run_dir": "run", "out_dir": "out", "model_dir": "model", "root": "root"}
ASKED_FOR = {**FOLDERS, "table": "captions.tsv", "model_dirs": {"mine": "model"}, "benchmark": "voc", "title": "Mine"}
"""what the forms of deployments on data of your own have no default for"""


def name_of(deployment: dict[str, Any]) -> str:
    return f"{deployment['entrypoint'].rpartition(':')[2]}/{deployment['name']}"


def test_prefect_yaml_follows_the_recipes() -> None:
    assert PATH.read_text() == text(), "run `python -m flows.deployments`"


def test_every_recipe_but_ablations_is_a_deployment_of_the_pipeline() -> None:
    assert {entry["name"] for entry in DEPLOYMENTS if "pipeline" in entry["tags"]} == {
        name for name in RECIPES if name.removesuffix("-debug") not in ABLATED
    }


def test_every_stage_phase_and_benchmark_is_a_deployment_once() -> None:
    names = [name_of(entry) for entry in DEPLOYMENTS]
    assert len(names) == len(set(names))
    assert {f"{stage.name}/stage" for stage in OWN} <= set(names)
    assert {f"train/vit-{size}-phase{phase}" for size in "sb" for phase in (1, 2)} <= set(names)
    assert {f"evaluate/{name.replace('_', '-')}" for name in BENCHMARKS} <= set(names)


@pytest.mark.parametrize("deployment", DEPLOYMENTS, ids=name_of)
def test_parameters_are_what_the_flow_takes_and_nothing_else_passes(deployment: dict[str, Any]) -> None:
    path, _, name = deployment["entrypoint"].partition(":")
    flow = getattr(import_module(path.removesuffix(".py").replace("/", ".")), name)
    required = {key: ASKED_FOR[key] for key in flow.parameters.required if key not in deployment["parameters"]}
    given = deployment["parameters"] | required
    assert set(flow.validate_parameters(given)) >= set(given)
    for key in {"config", "model", "protocol"} & set(given):
        with pytest.raises(ParameterTypeError, match="no_such_setting"):
            flow.validate_parameters(given | {key: given[key] | {"no_such_setting": 1}})
