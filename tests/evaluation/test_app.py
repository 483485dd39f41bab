"""What the app's page is told: masks equal to `ovseg segment`'s, groups with scores, reasons for what cannot be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from evaluation.app import WORDS_SHOWN, Asker, group_table
from evaluation.config import Protocol
from evaluation.group_scores import GroupScores
from evaluation.segment_images import segment_images, word_segmenter

WORDS, BACKGROUND = "bus, cat", "grass"


@pytest.fixture
def photo(tmp_path: Path, scene: np.ndarray, as_batch: Callable[[np.ndarray], Any]) -> Path:
    """A cat of 8 x 12 and a bus of 8 x 8 on grass."""
    Image.fromarray(as_batch(scene)[0].permute(1, 2, 0).numpy()).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.mark.parametrize("background", ["", BACKGROUND])
@pytest.mark.parametrize("threshold", [0.0, 0.4])
def test_the_files_are_those_of_ovseg_segment(
    photo: Path, tmp_path: Path, oracle_model: Any, background: str, threshold: float
) -> None:
    answer = Asker(oracle_model, Protocol(), tmp_path).answer(str(photo), WORDS, background, threshold)
    segmenter = word_segmenter(oracle_model, ("bus", "cat"), Protocol(threshold=threshold), background)
    segment_images(segmenter, ("bus", "cat"), [photo], tmp_path / "out")
    assert {file.name for file in answer.files.values()} == {
        "photo-mask.png",
        "photo-coco.json",
        "photo-overlay.png",
    }
    for file in answer.files.values():
        assert file.read_bytes() == (tmp_path / "out" / file.name).read_bytes()


def test_another_threshold_does_not_ask_the_encoder_again(photo: Path, tmp_path: Path, oracle_model: Any) -> None:
    asker = Asker(oracle_model, Protocol(), tmp_path)
    low = asker.answer(str(photo), WORDS, "", 0.0)
    passes = oracle_model.passes
    high = asker.answer(str(photo), WORDS, "", 0.9)
    assert oracle_model.passes == passes
    # No word fits the grass: half of its probability each, which is enough for .0 and too little for .9.
    assert [row[2] for row in low.rows] == ["bus", "cat", "bus"]
    assert [row[2] for row in high.rows] == ["background", "cat", "bus"]
    assert low.files["-mask.png"].read_bytes() != high.files["-mask.png"].read_bytes()


def test_the_table_has_a_row_per_group_with_share_name_and_probabilities(
    photo: Path, tmp_path: Path, oracle_model: Any
) -> None:
    answer = Asker(oracle_model, Protocol(), tmp_path).answer(str(photo), WORDS, BACKGROUND, 0.5)
    assert answer.header == ["group", "pixels, %", "named", "bus, %", "cat, %"]
    assert answer.rows == [[1, 89.6, "background", 0, 0], [2, 6.2, "cat", 0, 100], [3, 4.2, "bus", 100, 0]]
    assert answer.groups.shape[1] == 528  # 48 pixels enlarged to at least 512, and the legend below


def test_of_many_words_the_best_are_shown_in_their_order() -> None:
    score_GC = np.zeros((1, 40), np.float32)
    score_GC[0, 20 : 20 + WORDS_SHOWN] = 0.05
    scores = GroupScores(np.zeros((2, 2), np.int64), np.ones(1), score_GC)
    header, rows = group_table(scores, np.full((2, 2), 21), [f"w{number}" for number in range(40)])
    assert header[3:] == [f"w{number}, %" for number in range(20, 20 + WORDS_SHOWN)]
    assert rows == [[1, 100, "w20", *[5.0] * WORDS_SHOWN]]


@pytest.mark.parametrize(
    ("name", "words", "reason"),
    [
        (None, WORDS, "no image yet"),
        ("broken.jpg", WORDS, "no image of a format known"),
        ("photo.png", "", "no class to look for"),
        ("photo.png", "cat, cat", "given twice: cat"),
        ("photo.png", "cat", "'cat' alone is compared with nothing"),
    ],
)
def test_what_cannot_be_answered_is_told(
    photo: Path, tmp_path: Path, oracle_model: Any, name: str | None, words: str, reason: str
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    with pytest.raises(ValueError, match=reason):
        Asker(oracle_model, Protocol(), tmp_path).answer(name and str(photo.parent / name), words, "", 0.5)
