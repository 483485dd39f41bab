"""Published figures with their sources, to stand beside ours in a report (`published.toml`)."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

TABLES = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True)
class Figure:
    """A method's mIoU on a benchmark."""

    method: str
    """name in the source"""
    backbone: str
    """image encoder"""
    data: str
    """what it was trained on before any transfer"""
    supervision: str
    """what it was trained with: class labels, images alone (self), captions (text)"""
    zero_shot: bool
    """transferred as it is; false: fine-tuned on the benchmark's training masks"""
    miou: float
    """in %"""
    comparable: str
    """whether a figure of ours can be compared with it (yes, in part, no), and why"""
    source: str
    """where the figure is printed"""
    note: str = ""
    """what the source adds"""


@dataclass(frozen=True)
class UnseenFigure:
    """A method's mIoU over the unseen classes of a benchmark."""

    method: str
    """name in the source"""
    data: str
    """what it was trained on besides masks; "-" where nothing is stated"""
    trains_on_masks: bool
    """trained with masks of the seen classes"""
    sees_unseen_names: bool
    """knew the names of the unseen classes in training"""
    miou: float
    """in %"""
    comparable: str
    """whether a figure of ours can be compared with it (yes, no), and why"""
    source: str
    """where the figure is printed"""
    note: str = ""
    """what the source adds"""


@dataclass(frozen=True)
class ObjectiveFigure:
    """mIoU of OVSegmentor ViT-B under one objective of its text side."""

    objective: str
    """what is masked in a caption and told by the model"""
    masks: str
    """words that it masks in "The cat is sleeping under the tree on a sunny day."; empty where the source says none"""
    miou: float
    """in %"""
    comparable: str
    """whether a figure of ours can be compared with it, and why"""
    source: str
    """where the figure is printed"""


@dataclass(frozen=True)
class Properties:
    """What a method can do and needs."""

    method: str
    """name in the source"""
    open_vocabulary: bool
    """segments things named by any words"""
    mask_free: bool
    """trained without a mask"""
    zero_shot: bool
    """transferred without fine-tuning"""
    data_efficient: bool
    """trained on few image-caption pairs"""
    source: str
    """where this is printed"""


def figures(benchmark: str) -> list[Figure]:
    """Return the published mIoU on a benchmark, in the source's order; none where nothing is published."""
    return [Figure(**row) for row in _rows("transfer", benchmark)]


def unseen_figures(benchmark: str) -> list[UnseenFigure]:
    """Return the published mIoU over a benchmark's unseen classes, in the source's order."""
    return [UnseenFigure(**row) for row in _rows("unseen", benchmark)]


def objective_figures(benchmark: str) -> list[ObjectiveFigure]:
    """Return the published mIoU of each masking objective, in the source's order."""
    return [ObjectiveFigure(**row) for row in _rows("objectives", benchmark)]


def properties() -> list[Properties]:
    """Return what the source says that methods can do, in its order."""
    tables = _tables()
    return [Properties(**row, source=tables["sources"]["properties"]) for row in tables["properties"]]


def _rows(table: str, benchmark: str) -> list[dict[str, Any]]:
    """Return the rows of a table that have a figure on the benchmark, with reason and source in words."""
    tables = _tables()
    return [
        row
        | {
            "miou": row["miou"][benchmark],
            "comparable": tables["comparable"][row["comparable"]],
            "source": tables["sources"][table],
        }
        for row in tables[table]
        if benchmark in row["miou"]
    ]


@cache
def _tables() -> dict[str, Any]:
    return tomllib.loads(TABLES.read_text(encoding="utf-8"))
