from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model import ModelConfig, OVSegmentor
from training.config import TrainConfig, ValidationConfig
from training.loop import train_here
from training.phase import Phase
from training.validation import Validation

Make = Callable[..., TrainConfig]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a benchmark of four validation images, none of which are those of the figure."""
    root = tmp_path_factory.mktemp("benchmark")
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in range(4):
        Image.fromarray(generator.integers(0, 256, (32, 32, 3), np.uint8)).save(root / f"JPEGImages/{name}.jpg")
        Image.fromarray(generator.integers(0, 3, (32, 32), np.uint8)).save(root / f"SegmentationClass/{name}.png")
    (root / "ImageSets/Segmentation/train.txt").write_text("0\n1\n2\n3\n")
    (root / "classes.txt").write_text("background\ncat\ndog\n")
    return root


def settings(root: Path, **changes: object) -> ValidationConfig:
    return replace(ValidationConfig(every=2, benchmark="scenes", root=str(root)), **changes)  # type: ignore[arg-type]


@pytest.fixture
def figures(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the figures that the next measurements give, in order."""
    figures: list[float] = []
    monkeypatch.setattr("training.validation.validate", lambda *_: figures.pop(0))
    return figures


def lines(phase: Phase) -> list[dict[str, float]]:
    return [json.loads(text) for text in (phase.run_dir / "metrics.jsonl").read_text().splitlines()]


def test_watching_changes_no_weight(
    data_dir: Path, root: Path, tmp_path: Path, tiny_model: ModelConfig, tiny_config: Make
) -> None:
    blind = Phase(data_dir, tmp_path / "blind", tiny_model, tiny_config())
    watched = Phase(data_dir, tmp_path / "watched", tiny_model, tiny_config(validation=settings(root)))
    weights = [(train_here(phase) / "model.safetensors").read_bytes() for phase in (blind, watched)]
    assert weights[0] == weights[1]
    measured = {line["step"]: line["validation_miou"] for line in lines(watched) if "validation_miou" in line}
    assert list(measured) == [2, 4, 6]
    assert all(0 <= miou <= 1 for miou in measured.values())
    record = json.loads((watched.run_dir / "run.json").read_text())["validation"]
    best = record["best"]
    assert (record["split"], record["keep"]) == ("training", "last")
    assert best["miou"] == max(measured.values()) == measured[best["step"]]


@pytest.mark.parametrize("keep", ["last", "best"])
def test_the_best_is_kept_and_becomes_the_model_on_request(
    keep: str, data_dir: Path, root: Path, tmp_path: Path, tiny_model: ModelConfig, tiny_config: Make,
    figures: list[float],
) -> None:  # fmt: skip
    figures += [0.2, 0.5, 0.5]  # after steps 2, 4 and 6: the first of equals stays
    phase = Phase(data_dir, tmp_path / "run", tiny_model, tiny_config(validation=settings(root, keep=keep)))
    model = train_here(phase)
    best = phase.run_dir / "best"
    assert json.loads((best / "validation.json").read_text()) == {"step": 4, "miou": 0.5, "split": "training"}
    is_best = (model / "model.safetensors").read_bytes() == (best / "model.safetensors").read_bytes()
    assert is_best == (keep == "best")
    assert OVSegmentor.from_pretrained(best).config == tiny_model


def test_a_step_taken_again_leaves_the_best_as_it_is(
    root: Path, tmp_path: Path, data_dir: Path, tiny_model: ModelConfig, tiny_config: Make, figures: list[float]
) -> None:
    model = OVSegmentor.from_pretrained(train_here(Phase(data_dir, tmp_path / "run", tiny_model, tiny_config(steps=1))))
    figures += [0.4, 0.3, 0.4]
    validation = Validation(settings(root), tmp_path)
    for step in (2, 4, 2):
        validation.measure(model, step)
    assert validation.best() == {"step": 2, "miou": 0.4, "split": "training"}


def test_images_of_the_figure_are_only_looked_at_on_request(root: Path, tmp_path: Path) -> None:
    (root / "ImageSets/Segmentation/val.txt").write_text("3\n")
    assert Validation(settings(root), tmp_path).images.names == ("0", "1", "2", "3")
    assert Validation(settings(root, split="test"), tmp_path).images.names == ("3",)


def test_a_benchmark_that_is_not_there_is_told_before_training(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"validation\.root = None: where are images .* phase1\.validation=null"):
        Validation(ValidationConfig(), tmp_path)
    with pytest.raises(ValueError, match="has no split 'training'"):
        Validation(settings(tmp_path, benchmark="folder"), tmp_path)
