"""The page of `ovseg app`: an image and words in, masks and what they follow from out. Nothing leaves the machine."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
import torch
from numpy.typing import NDArray

from evaluation.atomic import write_bytes
from evaluation.config import Protocol
from evaluation.group_scores import GroupScores, group_scores
from evaluation.image_files import read_image
from evaluation.masks import mask_files
from evaluation.pictures import colour, hexadecimal, overlay, sized_for_show, with_legend
from evaluation.segment import BACKGROUND, Regions, Segmenter
from evaluation.segment_images import split_words, word_segmenter
from model import OVSegmentor

logger = logging.getLogger(__name__)

TITLE = "Masks for your words"
LOOPBACK = "127.0.0.1"
ADVICE = (
    "The model looks for exactly the words that you give. It learned from captions, without a mask. "
    "Nothing leaves this machine."
)
LOOKS_KEPT = 4
"""images, each with its words, whose regions are kept, so that the threshold moves at once"""
BUTTONS: list[Any] = ["download", "fullscreen"]
"""on pictures; Gradio's third one shares them on the network"""
WORDS_SHOWN = 12
"""columns of the table of groups that are words"""


@dataclass(frozen=True)
class Example:
    """An image with words to try on it."""

    image: Path
    """file of the image"""
    words: str
    """what to look for, like "dog, grass" """
    background: str = ""
    """things that count as none of the words"""


@dataclass(frozen=True)
class Look:
    """What the model saw in an image when it was asked for words."""

    image_HWC: NDArray[np.uint8]
    """the image's pixels"""
    words: tuple[str, ...]
    """what it was asked for"""
    segmenter: Segmenter
    """the model with these words"""
    regions: Regions
    """its groups, of which labels are made under any threshold"""


@dataclass(frozen=True)
class Answer:
    """What the page shows."""

    files: dict[str, Path]
    """ending of the name -> file: what `ovseg segment` writes with the same settings"""
    groups: NDArray[np.uint8]
    """the image under the colours of its groups, with a legend"""
    header: list[str]
    """columns of the table of groups"""
    rows: list[list[Any]]
    """a row per group"""


class Asker:
    """A model that answers the page; files to download go into `folder`."""

    def __init__(self, model: OVSegmentor, protocol: Protocol, folder: Path) -> None:
        self.model, self.protocol, self.folder = model, protocol, folder
        self.look = lru_cache(LOOKS_KEPT)(self._look)

    def answer(self, image: str | None, words: str, background: str, threshold: float) -> Answer:
        """Return masks, groups and scores of an image file under a threshold.

        Raises: ValueError when there is no image, or when it cannot be read or the words make no sense.
        """
        if image is None:
            raise ValueError("no image yet: drop one, or take an example")
        look = self.look(image, words, background)
        protocol = replace(look.segmenter.protocol, threshold=threshold)
        label_HW = look.segmenter.label(look.regions, protocol).cpu().numpy()
        scores = group_scores(look.segmenter, look.regions, protocol)
        folder, name = Path(tempfile.mkdtemp(dir=self.folder)), Path(image)
        files = {}
        for ending, content in mask_files(look.image_HWC, label_HW, look.words, name.name).items():
            files[ending] = folder / f"{name.stem}{ending}"
            write_bytes(files[ending], content)
        header, rows = group_table(scores, label_HW, look.words)
        return Answer(files, _group_picture(look.image_HWC, scores.group_HW, [row[2] for row in rows]), header, rows)

    def _look(self, image: str, words: str, background: str) -> Look:
        asked = split_words(words)
        segmenter = word_segmenter(self.model, asked, self.protocol, background)
        image_HWC = read_image(image)
        (regions,) = segmenter.regions([torch.from_numpy(image_HWC).permute(2, 0, 1)])
        return Look(image_HWC, asked, segmenter, regions)


def group_table(
    scores: GroupScores, label_HW: NDArray[np.int64], words: Sequence[str]
) -> tuple[list[str], list[list[Any]]]:
    """Return columns and rows: a group's number, its share of the pixels, its name, and its probability of each word.

    Shares and probabilities are in percent. Of many words those are shown that fit some group best.
    """
    best_C = scores.score_GC.max(0)
    shown = sorted(np.argsort(-best_C, kind="stable")[:WORDS_SHOWN].tolist())
    names = (BACKGROUND, *words)
    rows = [
        [
            group + 1,
            round(100 * share, 1),
            names[int(np.bincount(label_HW[scores.group_HW == group]).argmax())],
            *(round(100 * float(scores.score_GC[group, word]), 1) for word in shown),
        ]
        for group, share in enumerate(scores.share_G.tolist())
    ]
    return ["group", "pixels, %", "named", *(f"{words[word]}, %" for word in shown)], rows


def build_page(asker: Asker, background: str, examples: Sequence[Example]) -> gr.Blocks:
    """Return the page; `background` stands in its field for background words from the start."""

    def ask(image: str | None, words: str, background: str, threshold: float) -> list[Any]:
        try:
            answer = asker.answer(image, words, background, threshold)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error
        table = {"headers": answer.header, "data": answer.rows}
        return [str(answer.files["-overlay.png"]), answer.groups, table, [str(file) for file in answer.files.values()]]

    page = gr.Blocks(title=TITLE, analytics_enabled=False)
    with page:
        gr.Markdown(f"# {TITLE}\n{ADVICE}")
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                # The file as it was dropped, so that it is read as `ovseg segment` reads it.
                image = gr.Image(
                    type="filepath", image_mode=None, sources=["upload", "clipboard"], label="Image", buttons=BUTTONS
                )
                words = gr.Textbox(label="Words", placeholder="dog, grass", info="what to look for, between commas")
                away = gr.Textbox(
                    background,
                    label="Background words",
                    placeholder="sky, wall",
                    info="things that count as none of the words; they take the place of the threshold",
                )
                threshold = gr.Slider(
                    0,
                    1,
                    asker.protocol.threshold,
                    step=0.01,
                    label="Threshold",
                    info="groups whose best word is less likely than this are background",
                    interactive=not background,
                )
                button = gr.Button("Segment", variant="primary")
            with gr.Column(scale=3, min_width=300):
                with gr.Row():
                    masks, groups = (
                        gr.Image(label=label, format="png", interactive=False, min_width=240, buttons=BUTTONS)
                        for label in ("Masks", "Groups")
                    )
                table = gr.Dataframe(label="How well each word fits each group", interactive=False)
                files = gr.File(label="Download", file_count="multiple", interactive=False)
        inputs, outputs = [image, words, away, threshold], [masks, groups, table, files]
        gr.on([button.click, words.submit, away.submit, threshold.release], ask, inputs, outputs)
        away.change(lambda text: gr.update(interactive=not text.strip()), away, threshold)
        if examples:
            gr.Examples(
                [[str(example.image), example.words, example.background] for example in examples],
                [image, words, away],
                label="Examples: click one, then press Segment",
            )
    return page


def serve(model: OVSegmentor, protocol: Protocol, background: str, examples: Sequence[Example], port: int) -> None:
    """Serve the page on this machine alone until the process is interrupted.

    Raises: OSError when the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="ovseg-app-") as folder:
        page = build_page(Asker(model, protocol, Path(folder)), background, examples)
        page.launch(
            server_name=LOOPBACK,
            server_port=port,
            share=False,
            ssr_mode=False,
            quiet=True,
            show_error=True,
            footer_links=[],
            prevent_thread_lock=True,
            allowed_paths=[folder, *(str(example.image) for example in examples)],
            theme=gr.themes.Default(
                primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
            ),
        )
        logger.info("http://%s:%d  for this machine alone; Ctrl-C ends it", LOOPBACK, port)
        page.block_thread()


def _group_picture(
    image_HWC: NDArray[np.uint8], group_HW: NDArray[np.int64], names: Sequence[str]
) -> NDArray[np.uint8]:
    image_HWC, group_HW = sized_for_show(image_HWC, group_HW)
    legend = [
        {"name": f"{group + 1} {name}", "colours": [hexadecimal(colour(group))]} for group, name in enumerate(names)
    ]
    return with_legend(overlay(image_HWC, group_HW), legend)
