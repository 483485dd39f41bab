"""A benchmark run: figures, resuming, refusing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import evaluation.segment
from evaluation.config import Protocol
from evaluation.evaluate import evaluate
from model import ImageConfig, ModelConfig, TextConfig, initial, learn_wordpiece

WORDS = Protocol(background="words", background_words=("grass",))
Write = Callable[..., Path]


@pytest.fixture
def benchmark_dir(tmp_path: Path, scene: np.ndarray, write_benchmark: Write) -> Path:
    dogs_HW = np.zeros((32, 32), np.uint8)
    dogs_HW[4:12, 4:12] = 2
    dogs_HW[20:22] = 255
    return write_benchmark(tmp_path / "benchmark", [scene, dogs_HW, dogs_HW.T.copy(), scene])


def test_a_perfect_model_scores_one_and_a_confused_one_less(
    tmp_path: Path, benchmark_dir: Path, oracle_model: Any, confused_model: Any
) -> None:
    models = {"untrained": confused_model, "after": oracle_model}
    result = evaluate(models, "scenes", benchmark_dir, tmp_path / "out", WORDS)
    rows = {row["name"]: row for row in result["results"]}
    assert rows["after"]["miou"] == 1
    assert rows["after"]["iou"] == {"background": 1, "cat": 1, "dog": 1, "bus": 1}
    # Every group is called by the next name: cats dogs, dogs buses, buses grass, and grass cats. No pixel is right.
    assert rows["untrained"]["miou"] == 0
    assert result["subject"] == "after"
    kinds = [entry["kind"] for entry in result["results"]]
    assert kinds == ["model", "model", "baseline", "oracle", "baseline", "baseline", "oracle", "oracle"]
    background = rows["background"]
    # Both scenes have 1536 pixels, 96 of cat and 64 of bus; both dogs' pictures have 1024, 64 of dog and 64 void.
    assert background["iou"] == {
        "background": (2 * 1376 + 2 * 896) / (2 * 1536 + 2 * 960),
        "cat": 0,
        "dog": 0,
        "bus": 0,
    }
    assert [image["miou"]["after"] for image in result["images"]] == [1, 1, 1, 1]
    assert json.loads((tmp_path / "out/evaluation.json").read_text()) == result


def test_every_picture_is_there_once_and_named(tmp_path: Path, benchmark_dir: Path, oracle_model: Any) -> None:
    result = evaluate({"untrained": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", WORDS)
    pictures = result["pictures"]
    # All four score 1: the order is that of their names.
    assert [(picture["rank"], picture["name"]) for picture in pictures] == [
        *[("best", "000"), ("typical", "001"), ("worst", "003")]
    ]
    for picture in pictures:
        for kind in ("image", "truth", "prediction", "groups"):
            assert (tmp_path / "out" / picture["files"][kind]).stat().st_size > 0
    assert [entry["name"] for entry in pictures[0]["legends"]["truth"]] == ["cat", "bus"]
    assert [entry["name"] for entry in pictures[0]["legends"]["groups"]] == ["background", "cat", "bus"]


def test_a_finished_evaluation_is_read_and_not_repeated(tmp_path: Path, benchmark_dir: Path, oracle_model: Any) -> None:
    first = evaluate({"untrained": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", WORDS)
    passes = oracle_model.passes
    assert evaluate({"untrained": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", WORDS) == first
    assert oracle_model.passes == passes


def test_a_killed_evaluation_goes_on_where_it_was(
    tmp_path: Path, benchmark_dir: Path, oracle_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evaluation.evaluate.IMAGES_PER_PART", 1)
    whole = evaluate({"untrained": oracle_model}, "scenes", benchmark_dir, tmp_path / "whole", WORDS)
    label = evaluation.segment.Segmenter.label
    calls: list[int] = []

    def dies_at_the_third(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return label(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(evaluation.segment.Segmenter, "label", dies_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            evaluate({"untrained": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", WORDS)
    parts = sorted((tmp_path / "out/parts").iterdir())
    written = [path.stat().st_mtime_ns for path in parts]
    assert len(parts) == 2
    assert evaluate({"untrained": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", WORDS) == whole
    assert [path.stat().st_mtime_ns for path in parts] == written


def test_other_inputs_are_refused_by_name(
    tmp_path: Path, benchmark_dir: Path, oracle_model: Any, confused_model: Any
) -> None:
    evaluate({"untrained": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", WORDS)
    with pytest.raises(ValueError, match="holds an evaluation with other protocol; remove the folder"):
        evaluate({"untrained": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", Protocol())
    with pytest.raises(ValueError, match="other models"):
        evaluate({"untrained": confused_model}, "scenes", benchmark_dir, tmp_path / "out", WORDS)


def test_models_need_names_of_their_own(tmp_path: Path, benchmark_dir: Path, oracle_model: Any) -> None:
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluate({}, "scenes", benchmark_dir, tmp_path / "out")
    with pytest.raises(ValueError, match="models may not be called patches"):
        evaluate({"patches": oracle_model}, "scenes", benchmark_dir, tmp_path / "out")


def test_a_saved_model_is_measured_as_the_model_itself(tmp_path: Path, benchmark_dir: Path) -> None:
    config = ModelConfig(
        image=ImageConfig(
            image_size=32,
            stem="conv",
            patch_size=4,
            width=16,
            num_heads=2,
            depths=(0, 0),
            num_group_tokens=(4,),
            num_groups=(3,),
            query="assignment",
            drop_path=0.0,
        ),
        text=TextConfig(width=16, num_layers=1, num_heads=2, max_length=16),
        embedding_width=8,
        projector="linear",
    )
    tokenizer = learn_wordpiece(["a photo of a cat .", "a dog and a bus on the grass ."], 60)
    model = initial(config, tokenizer, seed=0).train()
    model.save_pretrained(tmp_path / "model")
    protocol = Protocol(background="words", background_words=("grass",), window=16, stride=8)
    here = evaluate({"one": model, "two": model}, "scenes", benchmark_dir, tmp_path / "here", protocol)
    saved = evaluate({"one": tmp_path / "model", "two": model}, "scenes", benchmark_dir, tmp_path / "saved", protocol)
    assert saved == here
    assert here["results"][0]["confusion"] == here["results"][1]["confusion"]
    assert np.sum(here["results"][0]["confusion"]) == 2 * 1536 + 2 * 960


def test_groups_unseen_classes_and_other_figures_stand_in_each_row(
    tmp_path: Path, benchmark_dir: Path, oracle_model: Any, confused_model: Any
) -> None:
    models = {"confused": confused_model, "oracle": oracle_model}
    result = evaluate(models, "scenes", benchmark_dir, tmp_path / "out", WORDS, unseen=["dog"])
    rows = {row["name"]: row for row in result["results"]}
    assert result["unseen"] == ["dog"]
    assert rows["oracle"]["unseen"] == {"seen_miou": 1, "unseen_miou": 1, "harmonic_mean": 1}
    assert rows["confused"]["unseen"] == {"seen_miou": 0, "unseen_miou": 0, "harmonic_mean": 0}
    assert rows["oracle"]["pixel_accuracy"] == rows["oracle"]["frequency_weighted_iou"] == 1
    # Wrong names do not make wrong groups: both have the same ones, and they are perfect. Background is not asked.
    for name in models:
        assert rows[name]["groups"]["mean_over_regions"] == rows[name]["groups"]["mean_over_classes"] == 1
        assert rows[name]["groups"]["regions"] == 6
    assert rows["patches"]["groups"] is None
    assert rows["colour_clusters"]["groups"]["mean_over_classes"] == 1


def test_background_rules_are_compared_in_the_same_pass(tmp_path: Path, benchmark_dir: Path, oracle_model: Any) -> None:
    evaluate({"one": oracle_model}, "scenes", benchmark_dir, tmp_path / "plain", WORDS, with_baselines=False)
    passes = oracle_model.passes
    result = evaluate(
        {"one": oracle_model},
        "scenes",
        benchmark_dir,
        tmp_path / "out",
        WORDS,
        with_baselines=False,
        with_backgrounds=True,
    )
    assert oracle_model.passes == 2 * passes
    rows = {row["rule"]: row["miou"] for row in result["backgrounds"]}
    assert rows["words"] == result["results"][0]["miou"] == 1
    assert rows["threshold, fitted"] == rows["confidence, fitted"] == 1
    assert [threshold for threshold, _ in result["threshold_curve"]] == [step / 20 for step in range(21)]
    assert [row["kind"] for row in result["results"]] == ["model"]


def test_the_usual_protocol_says_its_own_figure_in_the_table(
    tmp_path: Path, benchmark_dir: Path, oracle_model: Any
) -> None:
    protocol = Protocol(threshold=0.62)
    result = evaluate({"one": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", protocol, with_backgrounds=True)
    rows = {row["rule"]: row for row in result["backgrounds"]}
    assert rows["threshold"] == {"rule": "threshold", "setting": "0.62", "miou": result["results"][0]["miou"]}
    assert [0.62, result["results"][0]["miou"]] in result["threshold_curve"]


def test_rules_for_background_need_a_background(tmp_path: Path, scene: np.ndarray, write_benchmark: Write) -> None:
    root = write_benchmark(tmp_path / "b", [scene], ["grass", "cat", "dog", "bus"])
    with pytest.raises(ValueError, match="benchmark 'scenes' has no class 'background': there are no rules for it"):
        evaluate({"one": root}, "scenes", root, tmp_path / "out", with_backgrounds=True)


def test_an_unseen_name_that_is_no_class_is_refused(tmp_path: Path, benchmark_dir: Path, oracle_model: Any) -> None:
    with pytest.raises(ValueError, match="unseen classes tiger are not among the classes"):
        evaluate({"one": oracle_model}, "scenes", benchmark_dir, tmp_path / "out", WORDS, unseen=["tiger"])
