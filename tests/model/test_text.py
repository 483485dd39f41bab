from __future__ import annotations

import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import BertConfig, BertModel

from model import text
from model.config import TextConfig
from model.text import (
    CLIP,
    TextEncoder,
    Tokens,
    learn_wordpiece,
    load_pretrained_weights,
    paddings,
    text_architecture,
    tokenize,
)

CAPTIONS = ["A street sign.", "two snowboards on a street", "the snowy street", "snow on two signs"]
TINY = TextConfig(width=16, num_layers=2, num_heads=2, dropout=0.0)


def encoder(tokenizer: Any, config: TextConfig = TINY, seed: int = 0) -> TextEncoder:
    torch.manual_seed(seed)
    return TextEncoder(text_architecture(config, tokenizer)).eval()


def test_captions_are_lowered_framed_cut_and_padded_to_the_longest(tokenizer: Any) -> None:
    tokens = tokenize(tokenizer, ["A CAT", "a cat on the grass near the red water"], max_length=6)
    words = [tokenizer.convert_ids_to_tokens(row.tolist()) for row in tokens.input_ids_BL]
    assert words[0][0] == words[1][0] == "[CLS]"
    assert words[0][-1] == "[PAD]"
    assert words[1][-1] == "[SEP]"
    assert tokens.input_ids_BL.shape == (2, 6)
    assert "".join(words[0]).replace("##", "") == "[CLS]acat[SEP][PAD][PAD]"
    assert tokens.attention_mask_BL.sum(dim=1).tolist() == [4, 6]


@pytest.mark.parametrize("captions", [[], "a cat"])
def test_captions_that_are_no_list_are_refused(tokenizer: Any, captions: Any) -> None:
    with pytest.raises(ValueError, match="expected a non-empty list of captions"):
        tokenize(tokenizer, captions, 8)


def test_an_empty_caption_is_first_and_last_token(tokenizer: Any) -> None:
    assert tokenize(tokenizer, [""], 8).attention_mask_BL.tolist() == [[1, 1]]


def test_tokens_of_unlike_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match=r"expected ids and mask of one shape .* \(2, 3\) and \(2, 4\)"):
        Tokens(torch.ones(2, 3), torch.ones(2, 4))
    with pytest.raises(ValueError, match=r"no captions or no tokens, shape \(0, 3\)"):
        Tokens(torch.ones(0, 3), torch.ones(0, 3))


def test_word_pieces_do_not_depend_on_the_order_of_captions() -> None:
    assert learn_wordpiece(CAPTIONS, 80).get_vocab() == learn_wordpiece(reversed(CAPTIONS), 80).get_vocab()


def test_word_pieces_are_the_same_in_another_process() -> None:
    """Hash seeds differ between processes; vocabularies must not."""
    code = f"from model import learn_wordpiece; print(sorted(learn_wordpiece({CAPTIONS!r}, 80).get_vocab().items()))"
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(sorted(learn_wordpiece(CAPTIONS, 80).get_vocab().items()))


def test_frequent_words_become_one_piece_and_masks_stay_whole() -> None:
    learned = learn_wordpiece(CAPTIONS, 120)
    assert learned.tokenize("Street [MASK], snow") == ["street", "[MASK]", "[UNK]", "snow"]
    assert len(learned) <= 120


def test_learning_from_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="found no words to learn from"):
        learn_wordpiece(["", " "], 80)


def test_padding_changes_no_token(tokenizer: Any) -> None:
    model = encoder(tokenizer)
    short = tokenize(tokenizer, ["a cat"], 20)
    both = tokenize(tokenizer, ["a cat", "a cat on the grass near the red water"], 20)
    length = short.input_ids_BL.shape[1]
    torch.testing.assert_close(model(both)[:1, :length], model(short))


@pytest.mark.parametrize("pass_cost", [0, 10, 10_000])
def test_encoding_parts_together_equals_one_caption_at_a_time(
    tokenizer: Any, pass_cost: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text, "PASS_COST", pass_cost)
    model = encoder(tokenizer)
    lists = [["a cat", "a dog on the sofa"], ["people"], ["a cat on the grass near the red water", "a bird"]]
    # The second part carries padding that no caption needs.
    parts = [tokenize(tokenizer, captions, 20) for captions in lists]
    parts[1] = Tokens(*(F.pad(x, (0, 30)) for x in (parts[1].input_ids_BL, parts[1].attention_mask_BL)))
    found = model.together(parts)
    alone = [model(tokenize(tokenizer, [caption], 20))[0] for captions in lists for caption in captions]
    weight = torch.randn(100, 16)
    gradients = []
    for tokens in ([row for part in found for row in part.token_BLD], alone):
        total = sum((row[: len(one)] * weight[: len(one)]).sum() for row, one in zip(tokens, alone, strict=True))
        gradients.append(torch.autograd.grad(total, list(model.parameters()), retain_graph=True))
    rows = iter(alone)
    for part, captions in zip(found, lists, strict=True):
        assert part.token_BLD.shape[1] == part.length
        for first, row in zip(part.summary_BD, part.token_BLD[: len(captions)], strict=True):
            one = next(rows)
            torch.testing.assert_close(row[: len(one)], one)
            assert torch.equal(first, row[0])
    torch.testing.assert_close(*gradients, atol=1e-5, rtol=1e-4)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(2, 9), min_size=1, max_size=12), st.integers(0, 20))
def test_no_other_paddings_cost_less(lengths: list[int], pass_cost: int) -> None:
    def cost(bounds: tuple[int, ...]) -> int:
        return sum(min(b for b in bounds if b >= length) for length in lengths) + pass_cost * len(bounds)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text, "PASS_COST", pass_cost)
        found = paddings(lengths)
    assert found == sorted(found)
    shorter = sorted(set(lengths) - {max(lengths)})
    choices = [(*some, max(lengths)) for size in range(len(shorter) + 1) for some in combinations(shorter, size)]
    assert cost(tuple(found)) == min(cost(choice) for choice in choices)


@pytest.mark.parametrize("model_type", ["bert", "roberta", CLIP])
def test_other_encoders_of_transformers_fit(tokenizer: Any, model_type: str) -> None:
    config = TextConfig(model_type=model_type, width=16, num_layers=1, num_heads=2)
    model = encoder(tokenizer, config)
    assert model(tokenize(tokenizer, ["a cat"], 20)).shape[::2] == (1, 16)
    assert not [name for name, _ in model.named_parameters() if "pooler" in name]


@pytest.mark.parametrize(("model_type", "limit"), [("bert", 512), ("roberta", 511), (CLIP, 20)])
def test_captions_over_the_limit_are_refused_and_those_at_it_are_not(
    tokenizer: Any, model_type: str, limit: int
) -> None:
    config = TextConfig(model_type=model_type, width=16, num_layers=1, num_heads=2, max_length=20)
    model = encoder(tokenizer, config)
    over = model.max_length + 1
    assert model.max_length >= limit
    ids = torch.full((1, over), 7)
    assert model(Tokens(ids[:, 1:], torch.ones_like(ids[:, 1:]))).shape == (1, over - 1, 16)
    with pytest.raises(ValueError, match=f"captions of {over} tokens: the text encoder has positions for {over - 1}"):
        model(Tokens(ids, torch.ones_like(ids)))


def test_the_end_token_stands_for_a_caption_that_is_read_from_left_to_right(tokenizer: Any) -> None:
    config = TextConfig(model_type=CLIP, width=16, num_layers=2, num_heads=2, max_length=20)
    model = encoder(tokenizer, config).eval()
    tokens = tokenize(tokenizer, ["a cat on the sofa", "a dog"], 20)
    ends = tokens.attention_mask_BL.sum(dim=1) - 1
    assert torch.equal(model.summary(tokens), ends)
    parts = model.together([tokens, tokenize(tokenizer, ["a sofa"], 20)])
    whole = model(tokens)
    torch.testing.assert_close(parts[0].summary_BD, whole[torch.arange(2), ends])
    # The first token sees nothing but itself: it is the same for all captions and could tell nothing.
    torch.testing.assert_close(whole[0, 0], whole[1, 0])


def test_the_first_token_stands_for_a_caption_that_is_seen_at_once(tokenizer: Any) -> None:
    model = encoder(tokenizer, TextConfig(width=16, num_layers=1, num_heads=2))
    tokens = tokenize(tokenizer, ["a cat on the sofa", "a dog"], 20)
    assert torch.equal(model.summary(tokens), torch.zeros(2, dtype=torch.int64))


def test_a_pretrained_folder_gives_sizes_and_weights(tokenizer: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = BertModel(
        BertConfig(
            vocab_size=len(tokenizer), hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=12
        )
    ).eval()
    source.save_pretrained(tmp_path)
    model = encoder(tokenizer, TextConfig(pretrained=str(tmp_path)))
    load_pretrained_weights(model, str(tmp_path))
    tokens = tokenize(tokenizer, ["a cat on the sofa"], 20)
    expected = source(input_ids=tokens.input_ids_BL, attention_mask=tokens.attention_mask_BL).last_hidden_state
    torch.testing.assert_close(model(tokens), expected)
