from __future__ import annotations

import pytest
import torch

from model import Tokens, learn_wordpiece
from training.word_masking import NOT_TOLD, WordMasking

WORDS = WordMasking(mask=4, special=(0, 1, 2, 3, 4), num_pieces=1000)


def tokens_of(count: int, length: int, padding: int = 0) -> Tokens:
    """Captions of a first token, `length` words from 10 on, a last token, and padding."""
    ids = torch.tensor([[2, *range(10, 10 + length), 3, *[0] * padding]]).repeat(count, 1)
    return Tokens(ids, (ids > 0).long())


def test_a_seventh_of_the_words_is_told_and_what_stood_there_is_the_target() -> None:
    tokens = tokens_of(1, 40)
    masked, target_BL = WORDS(tokens, [7])
    told = target_BL != NOT_TOLD
    assert int(told.sum()) == 6  # 15 % of 40
    assert torch.equal(target_BL[told], tokens.input_ids_BL[told])
    assert torch.equal(masked.input_ids_BL[~told], tokens.input_ids_BL[~told])
    assert not told[:, [0, -1]].any()


def test_most_told_words_are_masked_some_replaced_some_left() -> None:
    tokens = tokens_of(400, 20)
    masked, target_BL = WORDS(tokens, range(400))
    told = target_BL != NOT_TOLD
    now, before = masked.input_ids_BL[told], tokens.input_ids_BL[told]
    assert int(told.sum()) == 400 * 3
    assert float((now == 4).float().mean()) == pytest.approx(0.8, abs=0.05)
    assert float((now == before).float().mean()) == pytest.approx(0.1, abs=0.04)
    other = now[(now != 4) & (now != before)]
    assert len(other.unique()) > 60  # any of the word pieces


def test_padding_and_neighbours_change_nothing() -> None:
    alone, alone_target = WORDS(tokens_of(1, 12), [3])
    padded, padded_target = WORDS(tokens_of(5, 12, padding=9), [1, 2, 3, 4, 5])
    assert torch.equal(padded.input_ids_BL[2, :14], alone.input_ids_BL[0])
    assert torch.equal(padded_target[2, :14], alone_target[0])
    assert (padded_target[:, 14:] == NOT_TOLD).all()


def test_one_word_is_told_however_short_the_caption_and_none_of_an_empty_one() -> None:
    _, one = WORDS(tokens_of(1, 1), [0])
    _, none = WORDS(tokens_of(1, 0), [0])
    assert one.tolist() == [[NOT_TOLD, 10, NOT_TOLD]]
    assert none.tolist() == [[NOT_TOLD, NOT_TOLD]]


def test_a_tokenizer_without_a_mask_token_is_refused() -> None:
    tokenizer = learn_wordpiece(["a cat on a sofa"], 40)
    found = WordMasking.of(tokenizer)
    assert (found.mask, sorted(found.special), found.num_pieces) == (4, [0, 1, 2, 3, 4], len(tokenizer))
    tokenizer.mask_token = None
    with pytest.raises(ValueError, match="has no mask token"):
        WordMasking.of(tokenizer)
