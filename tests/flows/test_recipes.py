from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from curation.download import DownloadConfig
from flows.recipes import (
    ABLATED,
    PUBLISHED,
    RECIPES,
    check_benchmark,
    demo,
    get_recipe,
    photos,
    with_benchmark,
    without_benchmark_images,
)
from model import OVSegmentor
from tests.training.conftest import write_data
from training.config import ValidationConfig
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


def test_validation_takes_the_benchmark_and_protocol_of_the_recipe_unless_it_has_its_own(tmp_path: Path) -> None:
    recipe = demo()
    validation = with_benchmark(recipe.phase1, recipe, tmp_path).validation
    assert validation is not None
    assert (validation.benchmark, validation.root, validation.protocol) == ("scenes", str(tmp_path), recipe.protocol)
    own = replace(recipe.phase1, validation=ValidationConfig(benchmark="voc", root="VOC2012"))
    validation = with_benchmark(own, recipe, tmp_path).validation
    assert validation is not None
    assert (validation.benchmark, validation.root, validation.protocol) == ("voc", "VOC2012", recipe.protocol)
    assert with_benchmark(recipe.phase1, recipe, None).validation is None
    assert photos().phase1.validation is None


def test_a_benchmark_folder_that_cannot_serve_is_told_before_anything_is_fetched(tmp_path: Path) -> None:
    recipe = get_recipe("cc4m")
    with pytest.raises(FileNotFoundError, match="not a folder of PASCAL VOC 2012: looked for JPEGImages"):
        check_benchmark(replace(recipe, benchmark_root=str(tmp_path)))
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "JPEGImages/a.jpg")
    Image.new("L", (4, 4)).save(tmp_path / "SegmentationClass/a.png")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("a\n")
    there = replace(recipe, benchmark_root=str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"missing: ImageSets/Segmentation/train\.txt"):
        check_benchmark(there)
    blind = replace(there.phase1, validation=None)
    check_benchmark(replace(there, phase1=blind, phase2=None))
    check_benchmark(demo())


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


def test_a_run_leaves_out_the_images_of_its_own_benchmark_folder(tmp_path: Path) -> None:
    recipe = replace(photos(), benchmark_root=str(tmp_path), download=DownloadConfig(benchmarks=("hashes.txt",)))
    assert without_benchmark_images(recipe).benchmarks == ("hashes.txt", str(tmp_path / "JPEGImages"))
    coco = replace(recipe, benchmark="coco_object", download=DownloadConfig())
    assert without_benchmark_images(coco).benchmarks == (str(tmp_path / "images" / "val2017"),)
    assert without_benchmark_images(demo()) == demo().download
