"""From a chunk of examples to the batch that the model takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from model import Batch, LossConfig, Tokens, same_set_positives
from training.data import Chunk, Words, seed_of
from training.transforms import normalise

Tokenize = Callable[[Sequence[str]], Tokens]
MaskWords = Callable[[Tokens, Sequence[int]], tuple[Tokens, torch.Tensor]]
"""training.word_masking.WordMasking, or a stand-in"""
CROSS_ENTITY = "a photo of a {}"


def build_batch(
    chunk: Chunk, prompts: Tokens | None, tokenize: Tokenize, loss: LossConfig, mask_words: MaskWords | None = None
) -> Batch:
    """Return the chunk as a batch with what the losses of positive weight need.

    `prompts` are those of all nouns, `mask_words` is for masked language modelling.
    """
    words = chunk.words
    batch = Batch(image=normalise(chunk.image_BCHW), caption=tokenize([word.caption for word in words]))
    if loss.entity > 0:
        question, answer = ([getattr(word, name) for word in words] for name in ("question", "answer"))
        batch = replace(batch, question=tokenize(question), answer=tokenize(answer))
    if prompts is not None:
        labels_BN = torch.zeros(len(words), len(prompts), dtype=torch.bool)
        for row, word in enumerate(words):
            labels_BN[row, list(word.nouns)] = True
        batch = replace(batch, nouns=prompts, noun_labels_BN=labels_BN)
    if mask_words is not None:
        masked, target_BL = mask_words(batch.caption, [word.seed for word in words])
        batch = replace(batch, masked=masked, masked_target_BL=target_BL)
    if loss.mask > 0 and chunk.cross_image_BCHW is not None:
        batch = replace(
            batch,
            cross_image=normalise(chunk.cross_image_BCHW),
            # A blank where there is no partner; has_cross_B keeps it out of the loss.
            cross_entity=tokenize([CROSS_ENTITY.format(word.cross_entity or "") for word in words]),
            has_cross_B=torch.tensor([word.cross_entity is not None for word in words]),
        )
    return batch


def with_positives(batch: Batch, words: list[Words]) -> Batch:
    """Return the batch with the captions of the same nouns marked as positives of each other.

    Talks to the other workers: call it where all of them do, in the same order.
    """
    ids_B = torch.tensor([seed_of(*word.nouns) if word.nouns else -1 for word in words], device=batch.image.device)
    return replace(batch, positives_BB=same_set_positives(ids_B))
