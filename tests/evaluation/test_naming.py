"""Names of regions and rules for background, on numbers that can be told by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from evaluation.config import Protocol
from evaluation.naming import Named, contenders, name_regions

# One window with three regions and two classes; at scale 1 the odds of the two classes are e^1, e^0 and e^-2.
COSINE_KRC = torch.tensor([[[1.0, 0.0], [0.5, 0.5], [-1.0, 1.0]]])
PROBABILITY = [math.e / (math.e + 1), 0.5, math.e**2 / (math.e**2 + 1)]


def named(protocol: Protocol, cosine_KRC: Tensor = COSINE_KRC, num_words: int = 0) -> Named:
    return name_regions(cosine_KRC, None, 1.0, num_words, protocol, has_background=True)


def background(protocol: Protocol) -> list[float]:
    found = named(protocol).background_KR
    assert found is not None
    return found[0].tolist()


def test_probabilities_are_the_softmax_of_scaled_cosines() -> None:
    assert named(Protocol()).class_KRC[0].amax(-1).tolist() == pytest.approx(PROBABILITY)


def test_what_has_less_than_the_threshold_is_background_but_for_the_surest() -> None:
    # The best probabilities are .731, .5 and .881.
    assert background(Protocol(threshold=0.4)) == [0, 0, 0]
    assert background(Protocol(threshold=0.6)) == [0, 1, 0]
    assert background(Protocol(threshold=0.99)) == [1, 1, 0]


def test_confidence_is_one_less_the_share_of_the_highest_entropy() -> None:
    surety_KR = named(Protocol(background="confidence")).surety_KR
    assert surety_KR is not None
    expected = [1 + sum(p * math.log2(p) for p in (share, 1 - share)) for share in PROBABILITY]
    assert surety_KR[0].tolist() == pytest.approx(expected, abs=1e-6)
    # Confidences .16, 0 and .47: under this rule a whole window may be background.
    assert background(Protocol(background="confidence", threshold=0.1)) == [0, 1, 0]
    assert background(Protocol(background="confidence", threshold=0.99)) == [1, 1, 1]


def test_between_two_alike_classes_confidence_stays_high_where_probability_halves() -> None:
    cosine_KRC = torch.tensor([[[50.0, 50.0, *[0.0] * 18]]])
    assert named(Protocol(), cosine_KRC).class_KRC.max().item() == pytest.approx(0.5)
    surety_KR = named(Protocol(background="confidence"), cosine_KRC).surety_KR
    assert surety_KR is not None
    assert surety_KR.item() == pytest.approx(1 - math.log(2) / math.log(20), abs=1e-6)


def test_a_single_class_is_always_confident() -> None:
    surety_KR = named(Protocol(background="confidence"), torch.tensor([[[0.3]]])).surety_KR
    assert surety_KR is not None
    assert surety_KR.tolist() == [[1.0]]


def test_background_words_take_their_part_of_the_probability() -> None:
    cosine_KRC = torch.tensor([[[1.0, 0.0, 2.0, -5.0]]])
    words = Protocol(background="words", background_words=("sky", "grass"))
    found = named(words, cosine_KRC, num_words=2)
    total = math.e + 1 + math.e**2  # the best word alone counts
    assert found.class_KRC[0, 0].tolist() == pytest.approx([math.e / total, 1 / total])
    assert found.background_KR is not None
    assert found.background_KR.item() == pytest.approx(math.e**2 / total)
    # Other rules do not see the words.
    plain = named(replace(words, background="threshold"), cosine_KRC, num_words=2)
    assert plain.class_KRC[0, 0].tolist() == pytest.approx([math.e / (math.e + 1), 1 / (math.e + 1)])


def test_a_class_that_another_beats_everywhere_is_no_contender() -> None:
    score_RC = torch.tensor([[0.2, 0.1, 0.7, 0.2, 0.7], [0.5, 0.4, 0.1, 0.5, 0.1]])
    # 1 is below 0; 3 equals 0 and comes later, 4 equals 2.
    assert contenders(score_RC).tolist() == [0, 2]


@given(st.lists(st.lists(st.integers(0, 3), min_size=6, max_size=6), min_size=1, max_size=4), st.integers(0, 99))
def test_contenders_hold_the_best_class_of_every_mix(rows: list[list[int]], seed: int) -> None:
    # Whole numbers in thirds of a mix: sums are exact, so that equals stay equal.
    score_RC = torch.tensor(rows, dtype=torch.float64)
    mix_MR = torch.randint(0, 4, (20, len(rows)), generator=torch.Generator().manual_seed(seed)).double()
    mixed_MC = mix_MR @ score_RC
    chosen_C = contenders(score_RC)
    assert chosen_C[mixed_MC[:, chosen_C].argmax(1)].tolist() == [
        int(row_C.argmax()) if mix_R.any() else int(chosen_C[0]) for row_C, mix_R in zip(mixed_MC, mix_MR, strict=True)
    ]
