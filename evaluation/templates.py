"""Sentences around a class name, in sets with names. Source: CLIP (Radford et al., arXiv 2103.00020), its notebook."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

FULL_80 = tuple(
    """\
a bad photo of a {}.
a photo of many {}.
a sculpture of a {}.
a photo of the hard to see {}.
a low resolution photo of the {}.
a rendering of a {}.
graffiti of a {}.
a bad photo of the {}.
a cropped photo of the {}.
a tattoo of a {}.
the embroidered {}.
a photo of a hard to see {}.
a bright photo of a {}.
a photo of a clean {}.
a photo of a dirty {}.
a dark photo of the {}.
a drawing of a {}.
a photo of my {}.
the plastic {}.
a photo of the cool {}.
a close-up photo of a {}.
a black and white photo of the {}.
a painting of the {}.
a painting of a {}.
a pixelated photo of the {}.
a sculpture of the {}.
a bright photo of the {}.
a cropped photo of a {}.
a plastic {}.
a photo of the dirty {}.
a jpeg corrupted photo of a {}.
a blurry photo of the {}.
a photo of the {}.
a good photo of the {}.
a rendering of the {}.
a {} in a video game.
a photo of one {}.
a doodle of a {}.
a close-up photo of the {}.
a photo of a {}.
the origami {}.
the {} in a video game.
a sketch of a {}.
a doodle of the {}.
a origami {}.
a low resolution photo of a {}.
the toy {}.
a rendition of the {}.
a photo of the clean {}.
a photo of a large {}.
a rendition of a {}.
a photo of a nice {}.
a photo of a weird {}.
a blurry photo of a {}.
a cartoon {}.
art of a {}.
a sketch of the {}.
a embroidered {}.
a pixelated photo of a {}.
itap of the {}.
a jpeg corrupted photo of the {}.
a good photo of a {}.
a plushie {}.
a photo of the nice {}.
a photo of the small {}.
a photo of the weird {}.
the cartoon {}.
art of the {}.
a drawing of the {}.
a photo of the large {}.
a black and white photo of a {}.
the plushie {}.
a dark photo of a {}.
itap of a {}.
graffiti of the {}.
a toy {}.
itap of my {}.
a photo of a cool {}.
a photo of a small {}.
a tattoo of the {}.
""".splitlines()
)
"""all that CLIP put around the names of ImageNet's classes; answers of masked entity completion begin with one"""
SUBSET_7 = (
    *("itap of a {}.", "a bad photo of a {}.", "a origami {}.", "a photo of the large {}."),
    *("a {} in a video game.", "art of the {}.", "a photo of the small {}."),
)
"""the seven that CLIP's authors found to do best; "itap" is "I took a picture" """
SIMPLE = ("a photo of a {}.",)
"""the one of the published segmentation protocol"""
TemplateSet = Literal["simple", "subset_7", "full_80"]
SETS: dict[str, tuple[str, ...]] = {"simple": SIMPLE, "subset_7": SUBSET_7, "full_80": FULL_80}


def sentences(templates: str | Sequence[str]) -> tuple[str, ...]:
    """Return the sentences of a set by its name, or the sentences as they are given."""
    return SETS[templates] if isinstance(templates, str) else tuple(templates)


def check_templates(field: str, templates: str | Sequence[str]) -> None:
    """Raise ValueError when a config's field holds no set's name and no usable sentences."""
    if isinstance(templates, str) and templates not in SETS:
        raise ValueError(f"{field} = {templates!r}: known sets are {', '.join(SETS)}; or give sentences")
    found = sentences(templates)
    if not found or any(template.count("{}") != 1 for template in found):
        raise ValueError(f"{field} = {found}: every template needs the name's place {{}} once, e.g. 'a {{}}.'")
