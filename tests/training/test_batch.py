from collections.abc import Sequence

import pytest
import torch

from model import LossConfig, Tokens
from training.batch import build_batch, with_positives
from training.data import Chunk, Words

TEXTS: list[str] = []


def tokenize(captions: Sequence[str]) -> Tokens:
    TEXTS.extend(captions)
    return Tokens(torch.zeros(len(captions), 1, dtype=torch.int64), torch.ones(len(captions), 1, dtype=torch.int64))


def words(place: int, nouns: tuple[int, ...], cross_entity: str | None) -> Words:
    return Words(place, place, f"caption {place}", f"question {place}", f"answer {place}", nouns, cross_entity, place)


@pytest.fixture
def chunk() -> Chunk:
    TEXTS.clear()
    image = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    named = [words(0, (0, 2), "cat"), words(1, (2,), None), words(2, (0, 2), "dog"), words(3, (), "cat")]
    return Chunk(named, image, image.clone(), {})


def test_a_batch_carries_what_the_losses_need_and_no_more(chunk: Chunk) -> None:
    batch = build_batch(chunk, None, tokenize, LossConfig(entity=0.0, mask=0.0))
    assert batch.image.dtype == torch.float32
    assert (batch.question, batch.answer, batch.cross_image, batch.cross_entity, batch.nouns) == (None,) * 5
    assert [f"caption {place}" for place in range(4)] == TEXTS


def test_masked_words_are_those_of_the_captions_each_by_its_seed(chunk: Chunk) -> None:
    seen: list[int] = []

    def mask_words(tokens: Tokens, seeds: Sequence[int]) -> tuple[Tokens, torch.Tensor]:
        seen.extend(seeds)
        return tokens, tokens.input_ids_BL

    batch = build_batch(chunk, None, tokenize, LossConfig(entity=0.0, mask=0.0, words=1.0), mask_words)
    assert batch.masked == batch.caption
    assert batch.masked_target_BL is not None
    assert seen == [0, 1, 2, 3]


def test_labels_mark_the_nouns_of_each_caption(chunk: Chunk) -> None:
    prompts = tokenize(["a photo of a cat", "a photo of a dog", "the grass"])
    labels = build_batch(chunk, prompts, tokenize, LossConfig()).noun_labels_BN
    assert labels is not None
    assert labels.int().tolist() == [[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 0]]


def test_images_without_a_partner_are_marked(chunk: Chunk) -> None:
    batch = build_batch(chunk, None, tokenize, LossConfig())
    assert batch.has_cross_B is not None
    assert batch.has_cross_B.tolist() == [True, False, True, True]
    assert TEXTS[-4:] == ["a photo of a cat", "a photo of a ", "a photo of a dog", "a photo of a cat"]


def test_captions_of_the_same_nouns_are_positives_and_captions_of_none_only_their_own(chunk: Chunk) -> None:
    positives = with_positives(build_batch(chunk, None, tokenize, LossConfig()), chunk.words).positives_BB
    assert positives is not None
    assert positives.int().tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
