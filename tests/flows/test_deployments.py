from __future__ import annotations

import yaml

from flows.deployments import PATH, text
from flows.recipes import ABLATED, RECIPES


def test_prefect_yaml_follows_the_recipes() -> None:
    assert PATH.read_text() == text(), "run `python -m flows.deployments`"


def test_every_recipe_but_ablations_is_a_deployment_of_the_pipeline() -> None:
    deployments = yaml.safe_load(PATH.read_text())["deployments"]
    assert {entry["name"] for entry in deployments if "pipeline" in entry["tags"]} == {
        name for name in RECIPES if name.removesuffix("-debug") not in ABLATED
    }
