"""Images to look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from evaluation.benchmarks import BENCHMARKS
from evaluation.config import Protocol
from evaluation.examples import draw, ranked
from evaluation.segment import Segmenter

WORDS = Protocol(background="words", background_words=("grass",))
Write = Callable[..., Path]


def test_the_best_the_median_and_the_worst_are_chosen_each_once() -> None:
    scored = [(f"{number:02d}", number / 100) for number in range(60)]
    chosen = ranked([*scored, ("void", None)])
    names: dict[str, list[str]] = {}
    for rank, name, _ in chosen:
        names.setdefault(rank, []).append(name)
    assert names == {
        "best": ["59", "58", "57", "56", "55", "54"],
        "typical": ["32", "31", "30", "29", "28", "27"],
        "worst": ["00", "01", "02", "03", "04", "05"],
    }
    assert [(rank, name) for rank, name, _ in ranked(scored[:1])] == [("best", "00")]


def test_every_model_is_drawn_on_the_same_image(
    tmp_path: Path, scene: np.ndarray, write_benchmark: Write, oracle_model: Any, confused_model: Any
) -> None:
    images = BENCHMARKS["scenes"].open(write_benchmark(tmp_path / "b", [scene]))
    segmenters = {
        name: Segmenter(model, images.classes, WORDS)
        for name, model in (("before", confused_model), ("after", oracle_model))
    }
    card = draw(segmenters, images, "000", tmp_path / "out")
    assert list(card["models"]) == ["before", "after"]
    files = [card["files"]["image"], card["files"]["truth"]]
    files += [model["files"][kind] for model in card["models"].values() for kind in ("prediction", "groups")]
    assert len(set(files)) == 6
    assert all((tmp_path / "out" / file).stat().st_size for file in files)
    # The last model's are also those of the image.
    assert card["files"]["groups"] == card["models"]["after"]["files"]["groups"]
    named = {name: [entry["name"] for entry in model["legends"]["groups"]] for name, model in card["models"].items()}
    # The confused model calls grass cat, cats dogs, and a bus what it takes grass for: background.
    assert named == {"before": ["cat", "dog", "background"], "after": ["background", "cat", "bus"]}
    assert card["models"]["after"]["legends"]["prediction"] == card["legends"]["truth"]
