"""Parts of a benchmark: what is counted does not depend on how images are dealt out."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from evaluation.config import Protocol
from evaluation.evaluate import evaluate
from evaluation.parts import PartJob, Setup, open_setup, run_part
from model import ImageConfig, ModelConfig, TextConfig, initial, learn_wordpiece

Write = Callable[..., Path]
WORDS = Protocol(background="words", background_words=("grass",), window=16, stride=8)


@pytest.fixture
def benchmark_dir(tmp_path: Path, scene: np.ndarray, write_benchmark: Write) -> Path:
    """Images of three sizes, mixed."""
    wide_HW = np.tile(scene, (1, 2))
    return write_benchmark(tmp_path / "benchmark", [scene, wide_HW, scene.T.copy(), scene, wide_HW, scene])


@pytest.fixture
def model_dir(tmp_path: Path) -> Path:
    config = ModelConfig(
        image=ImageConfig(image_size=16, patch_size=4, width=16, num_heads=2, depths=(1, 1), num_groups=(4,)),
        text=TextConfig(width=16, num_layers=1, num_heads=2, max_length=16),
        embedding_width=8,
        projector="linear",
    )
    tokenizer = learn_wordpiece(["a photo of a cat .", "a dog and a bus on the grass ."], 60)
    initial(config, tokenizer, seed=0).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def setup_of(model: Any, root: Path) -> Setup:
    return Setup((("one", model),), "scenes", root, WORDS, "cpu", with_baselines=True, with_backgrounds=True)


def test_images_of_one_window_size_share_a_pass_whatever_their_own(
    tmp_path: Path, benchmark_dir: Path, oracle_model: Any
) -> None:
    # All windows have 16 x 16 pixels: six images, one pass, and one more for patches, which the model counts apart.
    run_part(PartJob(setup_of(oracle_model, benchmark_dir), 0, 6, tmp_path / "part.json"))
    assert oracle_model.passes == 1
    rows = json.loads((tmp_path / "part.json").read_text())["images"]
    assert [row["name"] for row in rows] == [f"{number:03d}" for number in range(6)]


def test_a_full_pass_is_followed_by_another(
    tmp_path: Path, benchmark_dir: Path, oracle_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A scene of 32 x 48 has 3 x 5 windows of 256 pixels, the wide one 3 x 11: 15 + 33, 15 + 15, 33 + 15 of 48 windows.
    for module in ("parts", "segment"):
        monkeypatch.setattr(f"evaluation.{module}.PIXELS_PER_PASS", 48 * 256)
    run_part(PartJob(setup_of(oracle_model, benchmark_dir), 0, 6, tmp_path / "part.json"))
    assert oracle_model.passes == 3


def test_finished_parts_are_kept(tmp_path: Path, benchmark_dir: Path, oracle_model: Any) -> None:
    job = PartJob(setup_of(oracle_model, benchmark_dir), 0, 2, tmp_path / "part.json")
    job.out.write_text("kept")
    assert run_part(job).read_text() == "kept"
    assert oracle_model.passes == 0


def test_figures_are_the_same_for_any_chunks_and_any_worker(
    tmp_path: Path, benchmark_dir: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def figures(name: str, images_per_part: int, **options: Any) -> dict[str, Any]:
        monkeypatch.setattr("evaluation.evaluate.IMAGES_PER_PART", images_per_part)
        open_setup.cache_clear()
        out = tmp_path / name
        return evaluate({"one": model_dir}, "scenes", benchmark_dir, out, WORDS, with_backgrounds=True, **options)

    whole = figures("whole", 6)
    assert figures("pairs", 2) == whole
    assert figures("single", 1) == whole
    assert figures("workers", 2, map_parts=elsewhere) == whole


def elsewhere(do: Callable[[PartJob], Path], jobs: Iterable[PartJob]) -> list[Path]:
    """Do jobs as workers would: each sent as bytes, by a worker that has nothing open, the last one first."""
    sent = [pickle.dumps(job) for job in jobs]
    done = []
    for content in reversed(sent):
        open_setup.cache_clear()
        done.append(do(pickle.loads(content)))
    return done[::-1]


def test_a_setup_is_opened_once_in_a_worker(benchmark_dir: Path, model_dir: Path) -> None:
    open_setup.cache_clear()
    setup = setup_of(model_dir, benchmark_dir)
    assert open_setup(setup) is open_setup(setup_of(model_dir, benchmark_dir))
    open_setup.cache_clear()
