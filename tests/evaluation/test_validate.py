from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from evaluation.benchmarks import get_benchmark
from evaluation.config import Protocol
from evaluation.evaluate import evaluate
from evaluation.validate import spread_positions, validate
from model import OVSegmentor


def test_the_figure_is_that_of_an_evaluation_and_the_mode_stays(
    tmp_path: Path, scene: np.ndarray, write_benchmark: Callable[..., Path], oracle_model: OVSegmentor
) -> None:
    root = write_benchmark(tmp_path / "voc", [scene, scene[::-1].copy(), np.zeros_like(scene)])
    images = get_benchmark("scenes").open(root)
    oracle_model.train()
    found = validate(oracle_model, images, [0, 1, 2], Protocol())
    assert oracle_model.training
    told = evaluate({"model": oracle_model}, "scenes", root, tmp_path / "out", Protocol(), with_baselines=False)
    assert found == pytest.approx(told["results"][0]["miou"])
    assert found == 1


def test_positions_are_spread_from_the_first_to_the_last() -> None:
    assert spread_positions(10, 4) == [0, 3, 6, 9]
    assert spread_positions(3, 8) == [0, 1, 2]
    assert spread_positions(1, 8) == [0]
