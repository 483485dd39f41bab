from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from curation.download import DownloadConfig
from flows.config import check_benchmark, with_benchmark, without_benchmark_images
from flows.recipes import get_recipe
from flows.recipes_small import demo, photos
from training.config import ValidationConfig


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
