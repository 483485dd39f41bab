"""The stage that evaluates, on real Ray tasks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.config import Protocol
from flows.commands_models import _named_models
from flows.evaluate import evaluate
from flows.parts import gpus_of


@pytest.fixture
def benchmark_dir(tmp_path: Path) -> Path:
    generator = np.random.default_rng(0)
    root = tmp_path / "benchmark"
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for number, size in enumerate([(24, 32), (32, 24), (24, 32)]):
        Image.fromarray(generator.integers(0, 256, (*size, 3), np.uint8)).save(root / f"images/{number}.png")
        Image.fromarray(generator.integers(0, 3, size, np.uint8)).save(root / f"masks/{number}.png")
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return root


def test_ray_tasks_give_the_figures_of_one_process(
    benchmark_dir: Path, model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.evaluate.IMAGES_PER_PART", 1)

    def measured(name: str, on_ray: bool) -> object:
        models, protocol = {"trained": model_dir}, Protocol(threshold=0.4)
        return evaluate.fn(
            models, "folder", benchmark_dir, tmp_path / name, protocol, 0, "cpu", with_backgrounds=True, on_ray=on_ray
        )

    alone = measured("alone", on_ray=False)
    assert measured("by_ray", on_ray=True) == alone
    assert (tmp_path / "by_ray/parts/00002.json").exists()
    assert "mIoU, a folder of images and masks" in (model_dir / "README.md").read_text()


def test_only_a_task_on_a_gpu_asks_for_one() -> None:
    assert [gpus_of(device) for device in (None, "cpu", "cuda", "cuda:1")] == [0, 0, 1, 1]


def test_models_have_names_of_their_own() -> None:
    assert _named_models(["runs/a/model", "b=runs/b/model"]) == {
        "model": Path("runs/a/model"),
        "b": Path("runs/b/model"),
    }
    with pytest.raises(ValueError, match=r"runs/a/model and runs/b/model are both called 'model'; pass NAME=FOLDER"):
        _named_models(["runs/a/model", "runs/b/model"])
