"""Masked entity completion: the question, the answer and the noun prompts that a caption gives rise to."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from curation.images import Caption, Mention
from training.config import PromptConfig


def masked_mentions(caption: Caption, masked: str, generator: np.random.Generator) -> list[Mention]:
    """Return the mentions that a question leaves out, by `TrainConfig.masked`.

    A noun that belongs to no entity is named by its own word.
    Source: the paper's ablation of what is masked.
    """
    if masked == "entity":
        entities = entities_of(caption.mentions)
        chosen = entities[int(generator.integers(len(entities)))] if entities else None
        return [mention for mention in caption.mentions if mention.entity == chosen]
    if masked == "nouns":
        covered = {at for mention in caption.mentions for at in range(mention.start, mention.end)}
        others = [span for span in caption.nouns or () if covered.isdisjoint(range(*span))]
        return [*caption.mentions, *(Mention(caption.text[start:end].lower(), start, end) for start, end in others)]
    return caption.mentions


def entities_of(mentions: Sequence[Mention]) -> tuple[str, ...]:
    """Return the distinct entities in the order in which the caption names them."""
    return tuple(dict.fromkeys(mention.entity for mention in sorted(mentions, key=lambda mention: mention.start)))


def question(caption: str, mentions: Sequence[Mention], mask_token: str) -> str:
    """Return the caption with every mention replaced by one mask token; all else stays as it is."""
    pieces, position = [], 0
    for mention in sorted(mentions, key=lambda mention: (mention.start, -mention.end)):
        if mention.start < position:  # inside a mention that is masked already
            continue
        pieces += [caption[position : mention.start], mask_token]
        position = mention.end
    return "".join([*pieces, caption[position:]])


def answer(entities: Sequence[str], template: str) -> str:
    """Return the template up to its gap, then the entities joined by "and".

    Without an entity only the template's beginning remains, as in the paper.
    """
    return (template.partition("{}")[0] + " and ".join(entities)).rstrip()


class NounPrompts:
    """The nouns that captions may name, each with its prompt: all entities, then the config's extra nouns.

    Every worker and every step uses the same list, so a noun that a batch does not show is a negative of all of it.
    """

    def __init__(self, entities: Iterable[str], config: PromptConfig) -> None:
        entities = sorted(set(entities))
        extra = [noun for noun in config.extra_nouns if noun not in entities]
        self.prompts = [config.template.format(entity) for entity in entities]
        self.prompts += [config.extra_template.format(noun) for noun in extra]
        self._number = {noun.lower(): number for number, noun in enumerate([*entities, *extra])}
        # Whole words, longest first, so that "tall grass" is found before "grass".
        words = "|".join(re.escape(noun) for noun in sorted(extra, key=len, reverse=True))
        self._extra = re.compile(rf"\b(?:{words})\b", re.IGNORECASE) if extra else None

    def numbers(self, caption: str, entities: Sequence[str]) -> tuple[int, ...]:
        """Return the numbers of the caption's nouns in `prompts`, ascending."""
        nouns = [*entities, *(self._extra.findall(caption) if self._extra else ())]
        return tuple(sorted({self._number[noun.lower()] for noun in nouns}))
