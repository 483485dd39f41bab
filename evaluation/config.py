"""The protocol of an evaluation: everything besides model, classes and images that decides a figure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evaluation.templates import TemplateSet, check_templates


@dataclass(frozen=True)
class Protocol:
    """How a model is asked for masks: image size, windows, prompts, naming of groups, background."""

    shorter_side: int | None = None
    """shorter side to which images are resized first, in pixels; None keeps the image's own size"""
    longest_side: int | None = 1024
    """an image whose longer side would be longer than this, in pixels, is made smaller still; None sets no limit"""
    window: int | None = None
    """side of the sliding square window, in pixels of the resized image; None shows the whole image at once"""
    stride: int | None = None
    """step from one window to the next, in pixels; None puts windows side by side"""
    templates: TemplateSet | tuple[str, ...] = "simple"
    """sentences around a class name, or the name of a set of them; their embeddings are averaged"""
    assignment: Literal["hard", "soft"] = "hard"
    """hard: a pixel belongs to its likeliest group; soft: to all groups, by their probabilities"""
    patch_share: float = 0.0
    """share of a patch's own cosines in its name, the rest being its groups': 0 names whole groups, as published; more
    names each patch, with its groups as context, and costs a second, longer pass through the encoder"""
    top_classes: int | None = None
    """classes that may be named: the k nearest to the whole image, asked twice as published (5); None allows all"""
    background: Literal["threshold", "words", "confidence"] = "threshold"
    """rule for the class `background`: regions whose best class has too little probability (the surest region of a
    window always counts as an object), that a background word claims best, or whose classes are too evenly likely"""
    threshold: float = 0.95
    """what makes a region background when it is below: the best probability, for the rule `threshold`, or one minus the
    entropy of all, as a share of the highest possible, for `confidence`"""
    background_words: tuple[str, ...] = ()
    """things that count as background, for the rule `words`"""
    background_templates: tuple[str, ...] = ("the {}.",)
    """sentences around a background word"""

    @classmethod
    def paper(cls, threshold: float = 0.95) -> Protocol:
        """Return the published protocol; `threshold` was .95 on VOC and COCO-Stuff, .35 on Context, .9 on COCO Object.

        Source: NOTES 9: windows of 448 every 224 over a shorter side of 448, one template, the 5 classes nearest to the
        image, its scores asked twice. A paper model, whose remainder behind the last whole patch is lost, goes with it.
        """
        return cls(shorter_side=448, longest_side=2048, window=448, stride=224, top_classes=5, threshold=threshold)

    def __post_init__(self) -> None:
        for name in ("shorter_side", "longest_side", "window", "stride", "top_classes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} = {value}: must be at least 1, or None")
        if self.stride is not None and self.window is None:
            raise ValueError(f"stride = {self.stride} has no effect without a window; set window, or stride to None")
        if self.stride is not None and self.window is not None and self.stride > self.window:
            raise ValueError(
                f"stride = {self.stride} skips pixels between windows of {self.window}; use <= {self.window}"
            )
        check_templates("templates", self.templates)
        check_templates("background_templates", self.background_templates)
        if self.background == "words" and not self.background_words:
            raise ValueError("background = 'words' needs background_words, e.g. ('grass', 'sky'); or use 'threshold'")
        if not 0 <= self.patch_share <= 1:
            raise ValueError(f"patch_share = {self.patch_share}: a share, from 0 to 1")
        if not 0 <= self.threshold <= 1:
            raise ValueError(f"threshold = {self.threshold}: a probability, from 0 to 1")
