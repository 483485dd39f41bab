from __future__ import annotations

from dataclasses import replace

import pytest

from flows.recipes import RECIPES, demo, get_recipe, photos


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_its_command_and_cost_and_takes_its_seed_everywhere(name: str) -> None:
    assert "Command:" in (RECIPES[name].__doc__ or "")
    assert "Cost:" in (RECIPES[name].__doc__ or "")
    config = get_recipe(name, seed=7)
    seeds = [config.pairs.seed, config.phase1.seed, config.phase2.seed]
    assert set(seeds + ([config.scenes.seed] if config.scenes else [])) == {7}
    assert (config.phase1.phase, config.phase2.phase) == (1, 2)


def test_an_unknown_recipe_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="recipe 'dema' is unknown; known are demo, demo-debug, photos"):
        get_recipe("dema")


def test_a_run_has_exactly_one_source_and_a_benchmark() -> None:
    with pytest.raises(ValueError, match="give exactly one source; pass --set table=PATH"):
        replace(photos(), table=None)
    with pytest.raises(ValueError, match="give exactly one source"):
        replace(demo(), table="captions.tsv")
    with pytest.raises(ValueError, match="pass --set benchmark_root=PATH"):
        replace(photos(), benchmark_root=None)
    with pytest.raises(ValueError, match="nothing to serve; pass --set image_root=PATH"):
        replace(photos(), image_root=None, serve_port=8000)
