"""Curation: from a caption table to an indexed, downloaded and paired subset. Public names load when first used."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from curation.entities import EntityIndex
    from curation.pair_index import PairIndex
    from curation.parse import CaptionParser, Mention
    from curation.vocabulary import Vocabulary

__all__ = ["CaptionParser", "EntityIndex", "Mention", "PairIndex", "Vocabulary"]

# Training reads curation.schema and curation.images where spaCy, FAISS and img2dataset are not installed.
_HOMES = {
    "CaptionParser": "curation.parse",
    "EntityIndex": "curation.entities",
    "Mention": "curation.parse",
    "PairIndex": "curation.pair_index",
    "Vocabulary": "curation.vocabulary",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'curation' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(_HOMES[name]), name)
