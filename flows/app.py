"""The page of `ovseg app`, with drawn scenes to try."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

from curation.scenes_drawing import GROUNDS, draw
from evaluation.app import Example, serve
from evaluation.config import Protocol
from model import OVSegmentor

NUM_EXAMPLES = 6
EXAMPLE_SIDE = 64
"""pixels: the size that the demo's model has learned"""


def serve_app(model: OVSegmentor, protocol: Protocol, background: str, port: int) -> None:
    """Serve the page on this machine until the process is interrupted or gets SIGTERM."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # as after Ctrl-C, the examples are removed
    with tempfile.TemporaryDirectory(prefix="ovseg-examples-") as folder:
        serve(model, protocol, background, draw_examples(Path(folder)), port)


def draw_examples(folder: Path) -> list[Example]:
    """Return drawn scenes, written into a folder, with the names of what they show; always the same."""
    rng = np.random.default_rng(0)
    examples: list[Example] = []
    while len(examples) < NUM_EXAMPLES:
        scene = draw(rng, "shaded", EXAMPLE_SIDE)
        words = sorted({thing.entity for thing in scene.things if thing.entity})
        if len(words) > 1:
            path = folder / f"scene-{len(examples) + 1}.png"
            Image.fromarray(scene.pixels).save(path)
            examples.append(Example(path, ", ".join(words), ", ".join(GROUNDS)))
    return examples
