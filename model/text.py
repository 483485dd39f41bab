"""Text: tokens, a small WordPiece tokenizer, and the encoder.

Shape letters: B captions, L tokens, D width.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.checkpoint import LoadReport, load_weights
from model.config import TextConfig

CLIP = "clip_text_model"
"""transformers' name of the text transformer of CLIP and GroupViT"""
PASS_COST = 512
"""padding, in tokens, that is worth another pass through the encoder"""


@dataclass(frozen=True)
class Tokens:
    """Captions as token ids, padded to a common length."""

    input_ids_BL: Tensor
    """token ids, int64"""
    attention_mask_BL: Tensor
    """1 where there is a token, 0 where there is padding"""

    def __post_init__(self) -> None:
        if self.input_ids_BL.ndim != 2 or self.input_ids_BL.shape != self.attention_mask_BL.shape:
            raise ValueError(
                f"Tokens: expected ids and mask of one shape [captions, length], found "
                f"{tuple(self.input_ids_BL.shape)} and {tuple(self.attention_mask_BL.shape)}"
            )
        if 0 in self.input_ids_BL.shape:
            raise ValueError(f"Tokens: no captions or no tokens, shape {tuple(self.input_ids_BL.shape)}")

    def __len__(self) -> int:
        return len(self.input_ids_BL)

    def __getitem__(self, rows: slice) -> Tokens:
        return Tokens(self.input_ids_BL[rows], self.attention_mask_BL[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Tokens:
        """Return the same tokens on `device`."""
        return Tokens(
            self.input_ids_BL.to(device, non_blocking=non_blocking),
            self.attention_mask_BL.to(device, non_blocking=non_blocking),
        )

    def pin_memory(self) -> Tokens:
        """Return the same tokens in page-locked memory."""
        return Tokens(self.input_ids_BL.pin_memory(), self.attention_mask_BL.pin_memory())


@dataclass(frozen=True)
class TextFeatures:
    """What the text encoder makes of captions."""

    embedding_BE: Tensor
    """captions in the space shared with images; not normalised"""
    token_BLD: Tensor
    """tokens after the last layer"""


def tokenize(tokenizer: Any, captions: Sequence[str], max_length: int) -> Tokens:
    """Return the captions as tokens, cut at `max_length` and padded to the longest."""
    if isinstance(captions, str) or not captions:
        raise ValueError(f"tokenize: expected a non-empty list of captions, found {captions!r}")
    if tokenizer is None:
        raise ValueError("tokenize: this model was loaded without a tokenizer; set model.tokenizer")
    encoded = tokenizer(list(captions), padding=True, truncation=True, max_length=max_length, return_tensors="pt")
    return Tokens(encoded["input_ids"], encoded["attention_mask"])


def load_tokenizer(name: Path | str) -> Any:
    """Return the tokenizer of the hub name or folder `name`."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(name)


def learn_wordpiece(captions: Iterable[str], vocabulary_size: int) -> Any:
    """Return a WordPiece tokenizer learned from `captions`, lower-casing, with BERT's special tokens.

    The same captions in any order give the same vocabulary: left alone, the trainer numbers the inner characters
    ("##a") in the order of a randomly seeded hash table and breaks ties by these numbers. So they are handed to it
    sorted, as special tokens of a draft of which only the vocabulary is kept. Memory grows with distinct words.
    """
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    normalizer, pre_tokenizer = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    words: Counter[str] = Counter()
    for caption in captions:
        words.update(word for word, _ in pre_tokenizer.pre_tokenize_str(normalizer.normalize_str(caption)))
    if not words:
        raise ValueError("learn_wordpiece: found no words to learn from")

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    inner = [f"##{character}" for character in sorted(set().union(*words))]
    draft = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    draft.pre_tokenizer = pre_tokenizer
    trainer = trainers.WordPieceTrainer(vocab_size=vocabulary_size, special_tokens=special + inner, show_progress=False)
    draft.train_from_iterator((" ".join([word] * words[word]) for word in sorted(words)), trainer)

    tokenizer = Tokenizer(models.WordPiece(vocab=draft.get_vocab(), unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, pre_tokenizer
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        special_tokens=[(token, tokenizer.token_to_id(token)) for token in ("[CLS]", "[SEP]")],
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)  # type: ignore[no-untyped-call]


def text_architecture(config: TextConfig, tokenizer: Any) -> Any:
    """Return the transformers config of the text encoder: the pretrained one's, or one of the sizes in `config`."""
    from transformers import AutoConfig

    if config.pretrained is not None:
        found = AutoConfig.from_pretrained(config.pretrained)
        return getattr(found, "text_config", found)
    sizes = {
        "vocab_size": len(tokenizer),
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": int(config.width * config.mlp_ratio),
        "pad_token_id": tokenizer.pad_token_id,
    }
    if config.model_type == CLIP:
        return AutoConfig.for_model(
            CLIP,
            **sizes,
            attention_dropout=config.dropout,
            max_position_embeddings=config.max_length,
            bos_token_id=tokenizer.bos_token_id or tokenizer.cls_token_id,
            eos_token_id=tokenizer.eos_token_id or tokenizer.sep_token_id,
        )
    return AutoConfig.for_model(
        config.model_type,
        **sizes,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
        max_position_embeddings=max(512, config.max_length + 2),
        initializer_range=(3 * config.width) ** -0.5,
    )


class TextEncoder(nn.Module):
    """An encoder of transformers, used for its tokens.

    One token stands for the caption: the first of BERT and its kin, which see the whole caption from each token; the
    end token of the CLIP-style transformer, whose tokens see only what comes before them.
    """

    def __init__(self, architecture: Any) -> None:
        super().__init__()
        from transformers import AutoModel

        self.transformer = AutoModel.from_config(  # type: ignore[no-untyped-call]
            architecture, attn_implementation="sdpa"
        )
        if getattr(self.transformer, "pooler", None) is not None:
            self.transformer.pooler = None  # no loss reads it: dead weights, and gradients that DDP would wait for
        self.width: int = architecture.hidden_size
        self.max_length = _num_positions(self.transformer)
        self.end: int | None = architecture.eos_token_id if architecture.model_type == CLIP else None

    def summary(self, tokens: Tokens) -> Tensor:
        """Return the position of the token that stands for each caption. Shapes: -> int64 [B].

        Configs of CLIP's first release call the end token 2; its true id is the largest (transformers, issue 24773).
        """
        ids_BL = tokens.input_ids_BL
        if self.end is None:
            return ids_BL.new_zeros(len(ids_BL))
        return (ids_BL if self.end == 2 else (ids_BL == self.end).long()).argmax(dim=1)

    def forward(self, tokens: Tokens) -> Tensor:
        """Shapes: tokens [B, L] -> [B, L, D]."""
        if tokens.input_ids_BL.shape[1] > self.max_length:
            raise ValueError(
                f"captions of {tokens.input_ids_BL.shape[1]} tokens: the text encoder has positions for "
                f"{self.max_length}; cut them, as model.tokenize does at the config's max_length"
            )
        output = self.transformer(input_ids=tokens.input_ids_BL, attention_mask=tokens.attention_mask_BL)
        hidden: Tensor = output.last_hidden_state
        return hidden

    @property
    def piece_VD(self) -> Tensor:  # noqa: N802
        """The table of word pieces: a vector for each."""
        table: Tensor = self.transformer.get_input_embeddings().weight
        return table

    def layers(self) -> list[nn.Module]:
        """Return the transformer layers."""
        from transformers.modeling_layers import GradientCheckpointingLayer

        return [module for module in self.transformer.modules() if isinstance(module, GradientCheckpointingLayer)]

    def together(self, parts: Sequence[Tokens]) -> list[EncodedCaptions]:
        """Return all parts encoded, captions of like length in one pass whatever part they are of.

        Shapes: parts of [B_i, L_i], padded at their ends.
        """
        length_B = torch.cat([part.attention_mask_BL.sum(dim=1) for part in parts])
        lengths = length_B.tolist()
        ids_BL = _stack([part.input_ids_BL for part in parts], max(lengths))
        mask_BL = _stack([part.attention_mask_BL for part in parts], max(lengths))
        start_B, flat = torch.empty_like(length_B), []
        shorter, total = -1, 0
        for longest in paddings(lengths):
            rows = ((length_B > shorter) & (length_B <= longest)).nonzero()[:, 0]
            flat.append(self(Tokens(ids_BL[rows, :longest], mask_BL[rows, :longest])).flatten(0, 1))
            start_B[rows] = total + longest * torch.arange(len(rows), device=rows.device)
            shorter, total = longest, total + longest * len(rows)
        sizes = [len(part) for part in parts]
        flat_TD = torch.cat(flat) if len(flat) > 1 else flat[0]
        return [
            EncodedCaptions(flat_TD, starts, self.summary(part), max(own.tolist()))
            for part, starts, own in zip(parts, torch.split(start_B, sizes), torch.split(length_B, sizes), strict=True)
        ]


def _num_positions(transformer: nn.Module) -> int:
    """Return how many tokens the position table serves; RoBERTa's counts from behind its padding token."""
    tables = [
        module for name, module in transformer.named_modules() if re.search(r"\.position_embeddings?$", name)
    ]  # fmt: skip
    table = tables[0]
    assert isinstance(table, nn.Embedding)
    return table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)


@dataclass(frozen=True)
class EncodedCaptions:
    """Captions after the encoder; their tokens lie end to end with those of others."""

    flat_TD: Tensor
    """tokens of all captions that were encoded together"""
    start_B: Tensor
    """position of each caption's first token"""
    summary_B: Tensor
    """position within each caption of the token that stands for it"""
    length: int
    """tokens of the longest caption"""

    @property
    def summary_BD(self) -> Tensor:  # noqa: N802
        """The token of each caption that stands for it."""
        return self.flat_TD.index_select(0, self.start_B + self.summary_B)

    @property
    def token_BLD(self) -> Tensor:  # noqa: N802
        """All tokens; what lies beyond a caption's end is of no meaning and must be masked."""
        position_BL = self.start_B[:, None] + torch.arange(self.length, device=self.start_B.device)
        rows = self.flat_TD.index_select(0, position_BL.clamp(max=len(self.flat_TD) - 1).flatten())
        return rows.reshape(*position_BL.shape, -1)


def paddings(lengths: Sequence[int]) -> list[int]:
    """Return the lengths, ascending, to which captions are padded so that all passes together cost least.

    A caption is padded to the first that is not shorter. A pass costs its rows times its padded length, and PASS_COST.
    """
    counts = sorted(Counter(lengths).items())
    best: list[tuple[int, list[int]]] = [(0, [])]
    for end in range(1, len(counts) + 1):
        longest, rows, options = counts[end - 1][0], 0, []
        for start in reversed(range(end)):
            rows += counts[start][1]
            options.append((best[start][0] + rows * longest + PASS_COST, [*best[start][1], longest]))
        best.append(min(options))
    return best[-1][1]


def _stack(parts: Sequence[Tensor], length: int) -> Tensor:
    """Return the rows of all parts, cut or filled to `length`; what is cut or filled is padding."""
    return torch.cat([F.pad(part, (0, length - part.shape[1])) for part in parts])


def load_pretrained_weights(encoder: TextEncoder, name: str) -> LoadReport:
    """Replace the encoder's weights by those of the hub name or folder `name`."""
    from transformers import AutoModel

    source = AutoModel.from_pretrained(name)
    state = getattr(source, "text_model", source).state_dict()
    return load_weights(encoder.transformer, state, f"text encoder {name}")
