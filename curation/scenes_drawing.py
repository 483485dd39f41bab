"""Drawn scenes: ten kinds of thing on six kinds of ground, with the exact label of every pixel.

Everything is drawn at twice the size and reduced, so that edges are smooth. Colours, shading and patterns are chosen
per scene and level; on level `textured` the colour of a thing does not tell what it is, nor where it ends.
"""

from __future__ import annotations

import colorsys
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from curation.scenes_things import BODY, ENTITIES, SHAPES, TRIM, Pen

Level = Literal["plain", "shaded", "textured"]
Colour = tuple[float, float, float]
Pixels = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]

SCALE = 2
"""drawing size over final size, in each direction"""

GROUNDS = ("grass", "sand", "sea", "snow", "wall", "sky")


@dataclass(frozen=True)
class Thing:
    """One drawn thing."""

    entity: str | None
    """entity of the vocabulary, None for clutter that no caption names and no mask holds"""
    colour: str
    """colour word of its body"""
    size: float
    """radius as a share of the image's side"""


@dataclass(frozen=True)
class Scene:
    """A drawn image, its labels and what a caption may say about it."""

    pixels: Pixels
    """[H, W, 3]"""
    labels: Pixels
    """[H, W], 0 background, 1 + position in ENTITIES otherwise"""
    ground: str
    """one of GROUNDS"""
    things: list[Thing]
    """in the order of drawing: later ones cover earlier ones"""


_HUES = {"red": 0, "orange": 28, "yellow": 52, "green": 120, "turquoise": 172, "blue": 218, "purple": 272, "pink": 325}
# Level `plain`: one colour word for each kind of thing, two kinds for some colours; a ground keeps its colour.
_OWN_HUES = dict(
    zip(
        ENTITIES,
        ("red", "blue", "orange", "pink", "purple", "turquoise", "red", "yellow", "blue", "orange"),
        strict=True,
    )
)
_GROUND_COLOURS: dict[str, tuple[float, float, float, float]] = {
    # middle hue in degrees, its spread on level textured, saturation, brightness
    "grass": (105, 45, 0.55, 0.60),
    "sand": (42, 28, 0.42, 0.82),
    "sea": (212, 40, 0.60, 0.62),
    "snow": (215, 60, 0.08, 0.94),
    "wall": (12, 70, 0.50, 0.60),
    "sky": (205, 60, 0.35, 0.88),
}


def draw(rng: np.random.Generator, level: Level, image_size: int) -> Scene:
    """Return a scene drawn from the generator: up to three things (rarely none) on a ground."""
    side = SCALE * image_size
    ground = GROUNDS[rng.integers(len(GROUNDS))]
    canvas = _ground(rng, ground, level, side)
    labels = np.zeros((side, side), np.uint8)
    things: list[Thing] = []
    placed: list[tuple[float, float, float]] = []
    entities = _choose_entities(rng)
    if level != "plain" and rng.random() < 0.3:
        entities = [None, *entities]
    for entity in entities:
        radius = float(rng.uniform(0.19, 0.28) if entity else rng.uniform(0.05, 0.08)) * side
        spot = _free_spot(rng, radius, side, placed, level)
        if spot is None:
            continue
        placed.append((*spot, radius))
        things.append(_paint(rng, canvas, labels, entity, spot, radius, level))
    noise = rng.normal(0, 2.0 if level == "plain" else 4.0, (image_size, image_size, 3))
    small = canvas.reshape(image_size, SCALE, image_size, SCALE, 3).mean(axis=(1, 3)) + noise
    return Scene(np.clip(small, 0, 255).astype(np.uint8), _reduce(labels), ground, things)


def _choose_entities(rng: np.random.Generator) -> list[str | None]:
    count = int(rng.choice(4, p=(0.02, 0.33, 0.45, 0.20)))
    chosen: list[str | None] = [ENTITIES[i] for i in rng.permutation(len(ENTITIES))[:count]]
    if count >= 2 and rng.random() < 0.2:
        chosen[1] = chosen[0]
    return chosen


def _free_spot(
    rng: np.random.Generator, radius: float, side: int, placed: list[tuple[float, float, float]], level: Level
) -> tuple[float, float] | None:
    # Things may touch and cover a little of each other, but on level plain.
    closeness = 1.0 if level == "plain" else 0.85
    for _ in range(20):
        x, y = rng.uniform(0.9 * radius, side - 0.9 * radius, 2)
        if all(math.hypot(x - px, y - py) > closeness * (radius + pr) for px, py, pr in placed):
            return float(x), float(y)
    return None


def _paint(
    rng: np.random.Generator,
    canvas: Floats,
    labels: Pixels,
    entity: str | None,
    spot: tuple[float, float],
    radius: float,
    level: Level,
) -> Thing:
    """Draw a thing on canvas and labels, in place."""
    turn = 0.05 if level == "plain" else 0.2
    pen = Pen(radius, rng.uniform(-turn, turn), rng.uniform(0.9, 1.1), bool(rng.random() < 0.5))
    if entity is None:
        pen.disc(BODY, 0.0, 0.0, 0.9, 0.7)
    else:
        SHAPES[entity](pen)
    word, tones = _colours(rng, entity, level)
    left, top = round(spot[0]) - pen.side // 2, round(spot[1]) - pen.side // 2
    x0, y0, x1, y1 = (
        max(left, 0),
        max(top, 0),
        min(left + pen.side, canvas.shape[1]),
        min(top + pen.side, canvas.shape[0]),
    )
    tone = np.asarray(pen.image)[y0 - top : y1 - top, x0 - left : x1 - left]
    pixels = tones[tone]
    if level != "plain":
        pixels *= _shading(rng, tone.shape)[:, :, None]
    if level == "textured":
        pattern = _pattern(rng, tone.shape)
        pixels *= np.where((tone == BODY) | (tone == TRIM), pattern, 1.0).astype(np.float32)[:, :, None]
    inside = tone > 0
    canvas[y0:y1, x0:x1][inside] = pixels[inside]
    labels[y0:y1, x0:x1][inside] = 0 if entity is None else 1 + ENTITIES.index(entity)
    return Thing(entity, word, radius / canvas.shape[0])


def _colours(rng: np.random.Generator, entity: str | None, level: Level) -> tuple[str, Floats]:
    """Return the body's colour word and the colours of the five tones [5, 3], the first unused."""
    if level == "plain" and entity is not None:
        word = _OWN_HUES[entity]
    elif level == "shaded" and entity is not None:
        # Three neighbouring colours for each kind.
        words = list(_HUES)
        word = words[(words.index(_OWN_HUES[entity]) + int(rng.integers(-1, 2))) % len(words)]
    else:
        word = list(_HUES)[rng.integers(len(_HUES))]
    pale = level != "plain" and rng.random() < 0.25
    hue = _HUES[word] + rng.uniform(-8, 8)
    body = _rgb(hue, 0.35 if pale else rng.uniform(0.65, 0.95), rng.uniform(0.75, 0.95))
    apart = 140.0 if level == "plain" else rng.uniform(60, 300)
    trim = _rgb(hue + apart, rng.uniform(0.4, 0.8), rng.uniform(0.6, 0.95))
    dark = _rgb(hue + apart, 0.4, rng.uniform(0.12, 0.25))
    light = _rgb(hue, 0.08, rng.uniform(0.9, 1.0))
    return ("light " + word if pale else word), np.array([(0, 0, 0), body, trim, dark, light], np.float32)


def _ground(rng: np.random.Generator, ground: str, level: Level, side: int) -> Floats:
    """Return the empty canvas [side, side, 3]."""
    hue, spread, saturation, value = _GROUND_COLOURS[ground]
    spread = spread if level == "textured" else 6.0
    base = _rgb(
        hue + rng.uniform(-spread, spread),
        float(np.clip(saturation * rng.uniform(0.7, 1.3), 0, 1)),
        float(np.clip(value * rng.uniform(0.85, 1.1), 0, 1)),
    )
    canvas: Floats = np.broadcast_to(np.array(base, np.float32), (side, side, 3)).copy()
    if level == "plain":
        return canvas
    canvas *= _shading(rng, (side, side), 0.12)[:, :, None]
    if level == "textured":
        canvas *= _ground_pattern(rng, ground, side)[:, :, None]
    return canvas


def _ground_pattern(rng: np.random.Generator, ground: str, side: int) -> Floats:
    """Return brightness factors [side, side] that make grass blades, ripples, waves, drifts, bricks or clouds."""
    image = Image.new("L", (side, side), 128)
    pen = ImageDraw.Draw(image)
    unit = side / 128
    if ground == "grass":
        for x, y, lean, tone in zip(*rng.uniform(0, 1, (3, 150)), rng.integers(70, 200, 150), strict=True):
            x, y = x * side, y * side * 1.1
            pen.line([(x, y), (x + (lean - 0.5) * 8 * unit, y - 11 * unit)], fill=int(tone), width=round(2 * unit))
    elif ground == "sand":
        for x, y, tone in zip(*rng.uniform(0, side, (2, 260)), rng.integers(85, 180, 260), strict=True):
            pen.ellipse([(x, y), (x + 2.5 * unit, y + 2.5 * unit)], fill=int(tone))
    elif ground == "sea":
        yy, xx = np.mgrid[0:side, 0:side].astype(np.float32) / unit
        phase, bend, length = rng.uniform(0, 6.28), rng.uniform(0, 6.28), rng.uniform(9, 14)
        waves: Floats = 1 + np.float32(0.2) * np.sin(6.28 * yy / length + 1.5 * np.sin(xx / 8 + bend) + phase)
        return waves.astype(np.float32)
    elif ground == "snow":
        for x, y, size, tone in zip(
            *rng.uniform(0, side, (2, 26)), rng.uniform(8, 22, 26), rng.integers(112, 138, 26), strict=True
        ):
            pen.ellipse([(x - size * unit, y), (x + size * unit, y + size * unit)], fill=int(tone))
    elif ground == "wall":
        height, width = round(rng.uniform(11, 15) * unit), round(rng.uniform(22, 30) * unit)
        for row in range(side // height + 1):
            for column in range(-1, side // width + 1):
                left, top = column * width + (row % 2) * width // 2, row * height
                tone = int(rng.integers(100, 140))
                pen.rectangle(
                    [(left, top), (left + width, top + height)], fill=tone, outline=188, width=round(2 * unit)
                )
    else:
        for x, y, size in zip(*rng.uniform(0, side, (2, 9)), rng.uniform(7, 16, 9), strict=True):
            for lobe in (-1, 0, 1):
                cx, r = x + lobe * size * unit, size * unit * (1.0 if lobe == 0 else 0.7)
                pen.ellipse([(cx - r, y - 0.6 * r), (cx + r, y + 0.6 * r)], fill=158)
    factors: Floats = np.asarray(image).astype(np.float32) / np.float32(128)
    return factors


def _pattern(rng: np.random.Generator, shape: tuple[int, ...]) -> Floats:
    """Return brightness factors of a random pattern: none, stripes, dots or checks."""
    kind = rng.integers(4)
    if kind == 0:
        return np.ones(shape, np.float32)
    angle, period = rng.uniform(0, math.pi), rng.uniform(9, 16)
    y, x = np.ogrid[0 : shape[0], 0 : shape[1]]
    u = np.sin((2 * math.pi / period) * (math.cos(angle) * x + math.sin(angle) * y))
    v = np.sin((2 * math.pi / period) * (math.cos(angle) * y - math.sin(angle) * x))
    on = u > 0 if kind == 1 else (u * v > 0.35 if kind == 2 else (u > 0) ^ (v > 0))
    factors: Floats = np.where(on, rng.uniform(0.6, 0.8), 1.05).astype(np.float32)
    return factors


def _shading(rng: np.random.Generator, shape: tuple[int, ...], strength: float = 0.28) -> Floats:
    """Return brightness factors that fall from one side to the other."""
    angle = rng.uniform(0, 2 * math.pi)
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    factors: Floats = (1 + strength * (math.cos(angle) * x + math.sin(angle) * y)).astype(np.float32)
    return factors


def _rgb(hue: float, saturation: float, value: float) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb(hue % 360 / 360, saturation, value)
    return 255 * red, 255 * green, 255 * blue


def _reduce(labels: Pixels) -> Pixels:
    """Return labels at the final size: what holds most of a pixel's quarters, the later drawn in a tie."""
    quarters = np.stack([labels[i::SCALE, j::SCALE] for i in range(SCALE) for j in range(SCALE)])
    votes = (quarters[:, None] == quarters[None]).sum(1)
    best = votes.argmax(0)
    reduced: Pixels = np.take_along_axis(quarters, best[None], 0)[0]
    return reduced
