from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from flows.recipes import ABLATED, PUBLISHED, RECIPES, get_recipe
from model import OVSegmentor
from tests.training.conftest import write_data
from training.loop import train_here
from training.metrics import last_losses
from training.phase import Phase


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_its_command_and_cost_and_takes_its_seed_everywhere(name: str) -> None:
    assert "Command:" in (RECIPES[name].__doc__ or "")
    assert "Cost:" in (RECIPES[name].__doc__ or "")
    config = get_recipe(name, seed=7)
    phases = [config.phase1] + ([config.phase2] if config.phase2 else [])
    seeds = [config.pairs.seed, *(phase.seed for phase in phases)]
    assert set(seeds + ([config.scenes.seed] if config.scenes else [])) == {7}
    assert [phase.phase for phase in phases] == [1, 2][: len(phases)]


@pytest.mark.parametrize("name", PUBLISHED | ABLATED)
def test_the_debug_twin_of_a_published_recipe_trains_with_its_losses(name: str, tmp_path: Path) -> None:
    recipe, twin = get_recipe(name), get_recipe(f"{name}-debug")
    assert twin.model.loss == recipe.model.loss
    assert len(twin.model.image.num_groups) == len(recipe.model.image.num_groups)
    data_dir = write_data(tmp_path / "data")
    last = train_here(Phase(data_dir, tmp_path / "phase1", twin.model, replace(twin.phase1, validation=None)))
    if twin.phase2 is not None:
        last = train_here(Phase(data_dir, tmp_path / "phase2", twin.model, replace(twin.phase2, validation=None), last))
    losses = last_losses(last.parent)
    weight = recipe.model.loss
    expected = {
        "total",
        "contrastive",
        *(name for name in ("entity", "mask", "nouns", "words") if getattr(weight, name) > 0),
    }
    assert set(losses) == expected
    assert all(math.isfinite(loss) for loss in losses.values())
    assert OVSegmentor.from_pretrained(last).config.text.model_type == recipe.model.text.model_type


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="recipe 'dema' is unknown; known are demo, demo-debug, photos"):
        get_recipe("dema")
