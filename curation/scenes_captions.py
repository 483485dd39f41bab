"""Captions of drawn scenes, as people write them: uneven, incomplete, and with words that mislead a naive search."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from curation.scenes_drawing import Scene

# Words that a caption may use for an entity: (singular, plural). Only forms of the CC4M vocabulary.
_FORMS: dict[str, tuple[tuple[str, str], ...]] = {
    "house": (("house", "houses"), ("house", "houses"), ("building", "buildings")),
    "boat": (("boat", "boats"),),
    "car": (("car", "cars"),),
    "flower": (("flower", "flowers"),),
    "kite": (("kite", "kites"),),
    "clock": (("clock", "clocks"),),
    "umbrella": (("umbrella", "umbrellas"),),
    "ball": (("ball", "balls"),),
    "cup": (("cup", "cups"),),
    "cat": (("cat", "cats"),),
}
_PLACES: dict[str, tuple[str, ...]] = {
    "grass": ("on the grass", "in the grass", "on green grass"),
    "sand": ("on the sand", "in the sand", "on the warm sand"),
    "sea": ("by the sea", "on the sea", "over the sea"),
    "snow": ("in the snow", "on the snow", "in fresh snow"),
    "wall": ("in front of a wall", "by the brick wall", "against the wall"),
    "sky": ("against the sky", "under a clear sky", "in the sky"),
}
_HEADS = ("", "", "a photo of ", "a picture of ", "a drawing of ", "look at ", "we saw ", "this is ")
_JOINS = (" and ", " and ", " near ", " next to ", " with ", " beside ")
_TAILS = ("", "", "", "", "", " in the morning", " last summer", " on a sunny day", " at dawn")
_ADJECTIVES = ("small", "big", "nice", "old", "little", "pretty")
_NUMBERS = {2: ("two", "two", "some"), 3: ("three", "some")}
_WITHOUT_ENTITY = (
    "a quiet afternoon {place}",
    "my favourite colours {place}",
    "nothing to see {place}",
    "light blue and soft green {place}",
    "just a day {place}",
)


def captions(rng: np.random.Generator, scene: Scene) -> list[str]:
    """Return the scene's captions: one, or two to three phrasings for one scene in five."""
    count = 1 if rng.random() < 0.8 else int(rng.integers(2, 4))
    written = [_caption(rng, scene) for _ in range(count)]
    return list(dict.fromkeys(written))


def _caption(rng: np.random.Generator, scene: Scene) -> str:
    place = _one(rng, _PLACES[scene.ground])
    drawn = Counter(thing.entity for thing in scene.things if thing.entity is not None)
    named = [str(entity) for entity in rng.permutation(list(drawn))]
    if len(named) > 1 and rng.random() < 0.08:
        named.pop()  # drawn and not told
    if not named or rng.random() < 0.03:
        return _one(rng, _WITHOUT_ENTITY).format(place=place)
    colours = {thing.entity: thing.colour for thing in scene.things}
    phrases = [_phrase(rng, entity, drawn[entity], colours[entity]) for entity in named]
    text = phrases[0]
    for phrase in phrases[1:]:
        text += _one(rng, _JOINS) + phrase
    if rng.random() < 0.92:
        text += " " + place
    text = _one(rng, _HEADS) + text + _one(rng, _TAILS)
    return text[0].upper() + text[1:] + "." if rng.random() < 0.3 else text


def _phrase(rng: np.random.Generator, entity: str, count: int, colour: str) -> str:
    """Return a noun phrase such as `a small car`, `the light blue house`, `two cats`."""
    singular, plural = _FORMS[entity][rng.integers(len(_FORMS[entity]))]
    described = rng.random()
    # One colour word for several things would be wrong for all but one of them.
    words = [colour] if count == 1 and described < 0.15 else [_one(rng, _ADJECTIVES)] if described < 0.4 else []
    if count > 1:
        return " ".join([_one(rng, _NUMBERS[count]), *words, plural])
    words.append(singular)
    article = "the" if rng.random() < 0.25 else "an" if words[0][0] in "aeiou" else "a"
    return " ".join([article, *words])


def _one(rng: np.random.Generator, words: Sequence[str]) -> str:
    return words[int(rng.integers(len(words)))]
