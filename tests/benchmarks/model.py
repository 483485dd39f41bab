"""The model: default against published behaviour, and against transformers' GroupViT; memory, FLOPs, profile.

Captions are real ones (`../shared/real/photos.tsv`) where that folder is, else made up of the same lengths.
Weights are random: they do not change the time.
"""

from __future__ import annotations

import csv
import multiprocessing
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig, GroupViTConfig, GroupViTModel

from evaluation import Protocol, Segmenter
from model import Batch, ImageConfig, ModelConfig, OVSegmentor, PaperSegmentor, TextConfig, Tokens, learn_wordpiece
from model.grouping import ImageEncoder
from model.presets import groupvit_vit_s
from tests.benchmarks.memory import peak_gb
from tests.benchmarks.timing import median_s, row

PHOTOS = Path(__file__).parents[3] / "shared" / "real" / "photos.tsv"
BATCH, THREADS = 8, 2
WIDTHS = {"ViT-S": (384, 6), "ViT-B": (768, 12)}


def captions() -> list[str]:
    """Return captions of web images in a fixed order."""
    if not PHOTOS.exists():
        return [" ".join(["word", "dog", "on", "the", "grass"][: 3 + n % 3] * (1 + n % 5)) for n in range(512)]
    with PHOTOS.open(encoding="utf-8", newline="") as file:
        return [line["caption"] for line in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]


def build(name: str, kind: type[OVSegmentor], phase: int) -> tuple[OVSegmentor, Batch]:
    """Return a model of the paper's sizes with BERT-base, and a batch as its behaviour asks for it."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    width, num_heads = WIDTHS[name]
    tokenizer = learn_wordpiece(captions(), 8000)
    config = ModelConfig(image=ImageConfig(width=width, num_heads=num_heads), text=TextConfig())
    model = kind(config, tokenizer, BertConfig(vocab_size=30522)).train()
    if phase == 2:
        model.start_momentum()
        model.train()
        model.freeze_text()
    return model, make_batch(model, BATCH, phase)


def make_batch(model: OVSegmentor, size: int, phase: int) -> Batch:
    """Return a batch of noise with captions, as the model's behaviour asks for it."""
    texts = captions()
    chosen = texts[:: len(texts) // size][:size]
    masked = [" ".join("[MASK]" if word in ("dog", "cat", "man") else word for word in text.split()) for text in chosen]
    parts = {"caption": chosen, "question": masked, "answer": ["a photo of a dog and a cat"] * size}
    side = model.config.image.image_size
    image = {"image": torch.randn(size, 3, side, side)}
    if phase == 2:
        parts["cross_entity"] = ["a photo of a dog"] * size
        image["cross_image"] = torch.randn(size, 3, side, side)
    return Batch(**image, **{key: _tokens(model, texts) for key, texts in parts.items()})


def _tokens(model: OVSegmentor, texts: list[str]) -> Tokens:
    tokens = model.tokenize(texts)
    if model.behaviour != "paper":
        return tokens
    missing = model.config.text.max_length - tokens.input_ids_BL.shape[1]  # the release pads all captions
    return Tokens(
        *(torch.nn.functional.pad(part, (0, missing)) for part in (tokens.input_ids_BL, tokens.attention_mask_BL))
    )


def step(model: OVSegmentor, batch: Batch) -> None:
    model.zero_grad(set_to_none=True)
    model.losses(batch).total.backward()


def train(folder: Path) -> Iterator[list[str]]:
    """Forward and backward at batch 8, default against published behaviour, each with its peak memory."""
    del folder
    for name, phase in (("ViT-S", 1), ("ViT-B", 1), ("ViT-S", 2), ("ViT-B", 2)):
        ours, paper = (build(name, kind, phase) for kind in (OVSegmentor, PaperSegmentor))
        ours_s, paper_s = median_s(partial(step, *ours), partial(step, *paper), rounds=3)
        yield row(f"{name}, phase {phase}, forward + backward", BATCH, ours_s, "images", "paper behaviour", paper_s)
    for name in WIDTHS:
        ours_gb, paper_gb = (peak_of_steps(name, kind) for kind in (OVSegmentor, PaperSegmentor))
        yield [
            f"{name}, phase 1, peak memory of the process", f"{ours_gb:.2f} GB",
            f"paper behaviour: {paper_gb:.2f} GB", f"{ours_gb / paper_gb:.2f}",
        ]  # fmt: skip


def peak_of_steps(name: str, kind: type[OVSegmentor]) -> float:
    """Return the largest resident memory of a process of its own that takes two steps of phase 1."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_peak, (name, kind))


def _peak(name: str, kind: type[OVSegmentor]) -> float:
    model, batch = build(name, kind, phase=1)
    for _ in range(2):
        step(model, batch)
    return peak_gb()


def segment_twice(segmenter: Segmenter, image: torch.Tensor) -> None:
    """Segment as the release does: one pass for the maps, another for the groups that the first had found too."""
    segmenter.model.encode_image(image)
    segmenter.segment(image)


@torch.inference_mode()
def infer(folder: Path) -> Iterator[list[str]]:
    """One image of 448 pixels: one encoder pass here, two in the release; then image encoders side by side."""
    del folder
    vectors = torch.randn(21, 256)
    for name in WIDTHS:
        model, _ = build(name, OVSegmentor, 1)
        paper, _ = build(name, PaperSegmentor, 1)
        ours, theirs = Segmenter(model, vectors), Segmenter(paper, vectors, Protocol.paper())
        image = torch.randn(1, 3, 448, 448)

        ours_s, theirs_s = median_s(partial(ours.segment, image), partial(segment_twice, theirs, image), rounds=5)
        yield row(f"{name}, one image of 448 px", 1, ours_s, "images", "release, two passes", theirs_s)
    image = torch.randn(BATCH, 3, 224, 224)
    encoder, theirs_model = ImageEncoder(groupvit_vit_s().image).eval(), GroupViTModel(GroupViTConfig()).eval()
    ours_s, theirs_s = median_s(lambda: encoder(image), lambda: theirs_model.vision_model(image), rounds=9)
    yield row("GroupViT's image encoder, batch 8", BATCH, ours_s, "images", "transformers", theirs_s)


def where_time_goes(folder: Path) -> Iterator[list[str]]:
    """Distance of a step from its counted FLOPs at the machine's matrix-multiply rate, and the operations that cost."""
    del folder
    left, right = torch.randn(2, 2048, 2048)
    for name, phase in (("ViT-S", 1), ("ViT-S", 2)):
        for kind in (OVSegmentor, PaperSegmentor):
            model, batch = build(name, kind, phase)
            with FlopCounterMode(display=False) as counter:
                step(model, batch)
            multiply_s, step_s = median_s(lambda: left @ right, partial(step, model, batch), rounds=3)
            rate = 2 * 2048**3 / multiply_s
            flops = counter.get_total_flops()
            yield [
                f"{name}, phase {phase}, {kind.behaviour}: {flops / 1e9:,.0f} GFLOP a step", f"{step_s:.2f} s",
                f"floor at {rate / 1e9:,.0f} GFLOP/s: {flops / rate:.2f} s", f"{step_s / (flops / rate):.2f}",
            ]  # fmt: skip
            with profile(activities=[ProfilerActivity.CPU]) as profiler:
                step(model, batch)
            events = sorted(profiler.key_averages(), key=lambda event: -event.self_cpu_time_total)
            total = sum(event.self_cpu_time_total for event in events)
            shares = ", ".join(f"{event.key} {event.self_cpu_time_total / total:.0%}" for event in events[:8])
            yield [f"{name}, phase {phase}, {kind.behaviour}: own time by operation", shares, "", ""]
