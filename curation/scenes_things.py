"""The ten kinds of thing that scenes hold, each a handful of polygons in the square [-1, 1]^2.

A polygon has a *tone*: body, trim, dark or light. Colours come later, so shape and parts tell what a thing is.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from PIL import Image, ImageDraw

BODY, TRIM, DARK, LIGHT = 1, 2, 3, 4
"""tones; 0 is outside"""


class Pen:
    """Draws polygons of tones on a small canvas, turned and stretched as one."""

    def __init__(self, radius: float, angle: float, aspect: float, mirror: bool) -> None:
        self.side = 2 * math.ceil(1.25 * radius) + 1
        self.image = Image.new("L", (self.side, self.side))
        self._draw = ImageDraw.Draw(self.image)
        self._cos, self._sin = radius * math.cos(angle), radius * math.sin(angle)
        self._stretch = (-aspect if mirror else aspect, 1 / aspect)

    def polygon(self, tone: int, *points: tuple[float, float]) -> None:
        """Fill a polygon."""
        centre, (sx, sy) = self.side / 2, self._stretch
        self._draw.polygon(
            [
                (centre + self._cos * x * sx - self._sin * y * sy, centre + self._sin * x * sx + self._cos * y * sy)
                for x, y in points
            ],
            fill=tone,
        )

    def box(self, tone: int, left: float, top: float, right: float, bottom: float) -> None:
        """Fill a rectangle."""
        self.polygon(tone, (left, top), (right, top), (right, bottom), (left, bottom))

    def disc(self, tone: int, x: float, y: float, rx: float, ry: float | None = None, turn: float = 0.0) -> None:
        """Fill an ellipse, turned by radians."""
        self.sector(tone, x, y, rx, 0.0, 1.0, ry, turn)

    def sector(
        self,
        tone: int,
        x: float,
        y: float,
        rx: float,
        start: float,
        end: float,
        ry: float | None = None,
        turn: float = 0.0,
    ) -> None:
        """A pie slice (or the whole disc); start and end in turns, clockwise from the right."""
        ry, (cos, sin) = rx if ry is None else ry, (math.cos(turn), math.sin(turn))
        steps = max(3, round(20 * (end - start)))
        points = [] if end - start >= 1 else [(x, y)]
        for step in range(steps + 1):
            angle = 2 * math.pi * (start + (end - start) * step / steps)
            dx, dy = rx * math.cos(angle), ry * math.sin(angle)
            points.append((x + dx * cos - dy * sin, y + dx * sin + dy * cos))
        self.polygon(tone, *points)


def _boat(pen: Pen) -> None:
    pen.polygon(LIGHT, (0.0, -1.0), (0.8, 0.3), (0.0, 0.3))
    pen.polygon(TRIM, (-0.12, -0.8), (-0.12, 0.3), (-0.75, 0.3))
    pen.box(DARK, -0.1, -1.0, 0.0, 0.4)
    pen.polygon(BODY, (-1.0, 0.35), (1.0, 0.35), (0.65, 0.9), (-0.65, 0.9))


def _car(pen: Pen) -> None:
    pen.polygon(BODY, (-0.55, -0.1), (-0.35, -0.65), (0.35, -0.65), (0.6, -0.1))
    pen.box(BODY, -1.0, -0.15, 1.0, 0.45)
    pen.polygon(LIGHT, (-0.42, -0.12), (-0.28, -0.52), (-0.04, -0.52), (-0.04, -0.12))
    pen.polygon(LIGHT, (0.08, -0.12), (0.08, -0.52), (0.28, -0.52), (0.45, -0.12))
    for x in (-0.55, 0.55):
        pen.disc(DARK, x, 0.45, 0.3)
        pen.disc(LIGHT, x, 0.45, 0.12)


def _house(pen: Pen) -> None:
    pen.box(BODY, -0.75, -0.15, 0.75, 0.95)
    pen.polygon(TRIM, (-1.0, -0.1), (0.0, -0.95), (1.0, -0.1))
    pen.box(DARK, -0.5, 0.3, -0.1, 0.95)
    pen.box(LIGHT, 0.15, 0.15, 0.55, 0.55)


def _flower(pen: Pen) -> None:
    for petal in range(6):
        angle = 2 * math.pi * petal / 6
        pen.disc(BODY, 0.58 * math.cos(angle), 0.58 * math.sin(angle), 0.42, 0.3, angle)
        pen.disc(LIGHT, 0.5 * math.cos(angle), 0.5 * math.sin(angle), 0.2, 0.07, angle)
    pen.disc(TRIM, 0.0, 0.0, 0.32)
    pen.disc(DARK, 0.0, 0.0, 0.14)


def _kite(pen: Pen) -> None:
    corners = [(0.0, -1.0), (0.75, -0.15), (0.0, 1.0), (-0.75, -0.15)]
    for i, tone in enumerate((BODY, TRIM, BODY, TRIM)):
        pen.polygon(tone, corners[i], corners[(i + 1) % 4], (0.0, -0.15))
    pen.polygon(DARK, (-0.06, -1.0), (0.06, -1.0), (0.06, 1.0), (-0.06, 1.0))
    pen.box(DARK, -0.75, -0.21, 0.75, -0.09)


def _clock(pen: Pen) -> None:
    pen.disc(BODY, 0.0, 0.0, 0.95)
    pen.disc(LIGHT, 0.0, 0.0, 0.7)
    for tick in range(8):
        angle = 2 * math.pi * tick / 8
        pen.disc(DARK, 0.56 * math.cos(angle), 0.56 * math.sin(angle), 0.08)
    pen.polygon(DARK, (-0.08, 0.08), (-0.08, -0.5), (0.08, -0.5), (0.08, 0.08))
    pen.polygon(DARK, (-0.08, -0.08), (0.42, -0.08), (0.42, 0.08), (-0.08, 0.08))


def _umbrella(pen: Pen) -> None:
    for i in range(4):
        start = 0.5 + i / 8
        pen.sector(BODY if i % 2 else TRIM, 0.0, 0.15, 1.0, start, start + 0.125)
    for i in range(4):
        pen.disc(BODY if i % 2 else TRIM, -0.75 + 0.5 * i, 0.15, 0.25, 0.14)
    pen.box(DARK, -0.07, 0.15, 0.07, 0.9)
    pen.disc(DARK, 0.14, 0.85, 0.21, 0.13)


def _ball(pen: Pen) -> None:
    for i in range(6):
        pen.sector((BODY, LIGHT, TRIM)[i % 3], 0.0, 0.0, 0.95, i / 6, (i + 1) / 6)
    pen.disc(LIGHT, 0.0, 0.0, 0.18)


def _cup(pen: Pen) -> None:
    pen.disc(BODY, 0.62, 0.1, 0.38, 0.42)
    pen.disc(0, 0.62, 0.1, 0.18, 0.22)
    pen.polygon(BODY, (-0.85, -0.7), (0.6, -0.7), (0.42, 0.9), (-0.67, 0.9))
    pen.disc(LIGHT, -0.125, -0.68, 0.73, 0.26)
    pen.disc(DARK, -0.125, -0.66, 0.58, 0.17)
    pen.box(TRIM, -0.74, 0.2, 0.5, 0.42)


def _cat(pen: Pen) -> None:
    pen.polygon(BODY, (-0.85, -1.0), (-0.1, -0.5), (-0.8, 0.1))
    pen.polygon(BODY, (0.85, -1.0), (0.1, -0.5), (0.8, 0.1))
    pen.disc(BODY, 0.0, 0.15, 0.9, 0.78)
    for x in (-0.38, 0.38):
        pen.disc(LIGHT, x, 0.0, 0.24, 0.2)
        pen.disc(DARK, x, 0.0, 0.1, 0.19)
    pen.disc(LIGHT, 0.0, 0.52, 0.36, 0.24)
    pen.polygon(DARK, (-0.14, 0.36), (0.14, 0.36), (0.0, 0.54))


SHAPES: dict[str, Callable[[Pen], None]] = {
    "boat": _boat,
    "car": _car,
    "house": _house,
    "flower": _flower,
    "kite": _kite,
    "clock": _clock,
    "umbrella": _umbrella,
    "ball": _ball,
    "cup": _cup,
    "cat": _cat,
}
ENTITIES = tuple(SHAPES)
"""the kinds of thing that are labelled, all in the CC4M vocabulary"""
