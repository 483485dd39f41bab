"""The published rule: a token counts that equals a form letter by letter; no plurals, no senses, no parts of speech.

Source: the authors' filter script, which cuts captions by NLTK's word tokenizer.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from nltk.tokenize import NLTKWordTokenizer

from curation.vocabulary import Mention, Vocabulary

_RUN = re.compile(r"\w+(?:-\w+)*")


class ExactRule:
    """Finds the forms of a vocabulary as exact tokens."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._entities: Mapping[str, str] = vocabulary.forms
        self._tokenizer = NLTKWordTokenizer()

    def parse(self, caption: str) -> list[Mention]:
        """Return the mentions of a caption, in order."""
        # Between spaces, a word without punctuation is one token (but for a few like "cannot", of which no form of ours
        # is a part). So the tokenizer, which is slow, is asked only where a form touches something.
        found = [match for match in _RUN.finditer(caption) if match.group() in self._entities]
        if all(_stands_alone(caption, match) for match in found):
            return [Mention(self._entities[match.group()], *match.span()) for match in found]
        return [
            Mention(self._entities[token], start, start + len(token))
            for token, start in self._tokens(caption)
            if token in self._entities
        ]

    def _tokens(self, caption: str) -> Iterator[tuple[str, int]]:
        """Yield the tokens with their offsets; quotation marks, which NLTK rewrites, are left out."""
        end = 0
        for token in self._tokenizer.tokenize(caption):
            if token not in ("``", "''"):
                start = caption.index(token, end)
                end = start + len(token)
                yield token, start


def _stands_alone(caption: str, match: re.Match[str]) -> bool:
    start, end = match.span()
    return (start == 0 or caption[start - 1].isspace()) and (end == len(caption) or caption[end].isspace())
