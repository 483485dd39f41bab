"""The card of a saved model: what it is, what it was made from, how well it does, and what it cannot do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from model.ovsegmentor import OVSegmentor

LIMITS = (
    "It learned from captions, not from masks: borders are as fine as its patches, and what captions seldom name is "
    "seldom found.",
    "A class is found by its name alone: try several names, and add the background words of your images.",
    "It repeats the biases of its captions. Do not use it to judge people.",
)
METRICS = "| metric | value |\n| --- | --- |\n"


@dataclass(frozen=True)
class CardFacts:
    """What only the maker of a model knows of it."""

    data: str = "not recorded"
    """what it was trained on, as a sentence"""
    recipe: Mapping[str, object] = field(default_factory=dict)
    """settings that decided the weights -> their values"""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """name of a figure -> figure"""


def model_card(model: OVSegmentor, facts: CardFacts) -> str:
    """Return the card as Markdown with the YAML header that model hubs read."""
    image, text = model.config.image, model.architecture
    stages = " + ".join(str(depth) for depth in image.depths)
    groups = " -> ".join(str(number) for number in image.num_groups)
    num_parameters = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("momentum_"))
    lines = [
        "---", "tags: [zero-shot-segmentation, image-text]", "library_name: ovsegmentor", "---", "",
        "# OVSegmentor", "",
        "Segments what you name: patches of an image are bound into groups, groups are compared with names. "
        "(Xu et al., CVPR 2023, arXiv 2301.09121)", "",
        "    from model import OVSegmentor", "    from evaluation import Segmenter", "",
        '    model = OVSegmentor.from_pretrained("this folder")',
        '    labels_BHW = Segmenter(model, ["background", "cat", "dog"]).segment(image_BCHW)  # uint8 [B, 3, H, W]', "",
        "## Model", "",
        f"- image encoder: patches of {image.patch_size} px at {image.image_size} px, width {image.width}, "
        f"{stages} blocks, groups {groups}, started from {image.pretrained or 'random weights'}",
        f"- text encoder: {text.model_type}, width {text.hidden_size}, {text.num_hidden_layers} layers, started from "
        f"{model.config.text.pretrained or 'random weights'}",
        f"- {num_parameters:,} parameters, behaviour `{model.behaviour}`",
        "", "## Data", "", facts.data, "", "## Recipe", "",
        *(f"- {name}: {value}" for name, value in facts.recipe.items()),
        *([] if facts.recipe else ["not recorded"]),
        "", "## Metrics", "", METRICS + "".join(_row(name, value) for name, value in facts.metrics.items()),
        "## Limits", "", *(f"- {limit}" for limit in LIMITS), "",
    ]  # fmt: skip
    return "\n".join(lines)


def add_metrics(card: Path, metrics: Mapping[str, float]) -> None:
    """Put figures at the head of the metrics of a card that was written before; the same name is replaced."""
    text = card.read_text(encoding="utf-8")
    head, found, tail = text.partition(METRICS)
    if not found:
        raise ValueError(f"{card}: expected a card with a table of metrics as save_pretrained writes it")
    kept = [line for line in tail.splitlines(True) if not any(line.startswith(f"| {name} |") for name in metrics)]
    draft = card.with_name(f".{card.name}")
    draft.write_text(
        head + METRICS + "".join(_row(name, value) for name, value in metrics.items()) + "".join(kept), encoding="utf-8"
    )
    draft.replace(card)


def _row(name: str, value: float) -> str:
    return f"| {name} | {value:.4g} |\n"
