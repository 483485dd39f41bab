"""The objectives that the paper compares, as changes of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from flows.config import PipelineConfig
from model import LossConfig


@dataclass(frozen=True)
class Ablation:
    """What phase 1 is trained with beside the captions' contrastive loss: a row of the paper's table of objectives."""

    title: str
    """as the paper calls it"""
    loss: LossConfig
    """its losses"""
    published: str
    """mIoU on VOC and Context with ViT-B, as published"""
    masked: Literal["entities", "entity", "nouns"] = "entities"
    """what the question leaves out"""


def _objective(entity: float = 0.0, nouns: float = 0.0, words: float = 0.0, **others: Any) -> LossConfig:
    return LossConfig(entity=entity, mask=0.0, nouns=nouns, words=words, **others)


ABLATIONS: dict[str, Ablation] = {
    "contrastive": Ablation("contrastive loss alone", _objective(), "not in that table"),
    "entities": Ablation("all entities", _objective(entity=1.0), "48.9 / 19.9"),
    "entity": Ablation("single entity", _objective(entity=1.0), "47.0 / 18.5", masked="entity"),
    "nouns": Ablation("all nouns", _objective(entity=1.0), "45.4 / 17.4", masked="nouns"),
    "multi-label": Ablation("multi-label contrastive", _objective(nouns=1.0), "44.5 / 17.0"),
    "words-groups": Ablation("masked language modelling with groups", _objective(words=1.0), "42.8 / 16.3"),
    "words-text": Ablation(
        "masked language modelling without groups", _objective(words=1.0, words_see="text"), "36.3 / 14.6"
    ),
}
"""the paper's objectives, by the name of their recipe"""


def ablated(recipe: PipelineConfig, ablation: Ablation) -> PipelineConfig:
    """Return a recipe that ends with phase 1, trained with another objective."""
    return replace(
        recipe,
        title=f"{recipe.title}, objective: {ablation.title}",
        parse=replace(recipe.parse, nouns=recipe.parse.nouns or ablation.masked == "nouns"),
        model=replace(recipe.model, loss=ablation.loss),
        phase1=replace(recipe.phase1, masked=ablation.masked),
        phase2=None,
    )
