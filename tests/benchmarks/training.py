"""Training: what the loader yields, and where the time of a step of the demo's recipe goes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from PIL import Image

from curation.images import Samples
from flows.recipes import cc4m_vit_s
from flows.recipes_small import demo
from model import ModelConfig
from tests.benchmarks.curation import make_images
from tests.benchmarks.photographs import STORED, stored_photographs
from tests.benchmarks.timing import median_s, row
from training.config import AugmentConfig, ComputeConfig, LaunchConfig, TrainConfig
from training.data import generator_of
from training.loop import train_here
from training.phase import Phase
from training.transforms import build_transform

SIZE = 224


def loader(folder: Path) -> Iterator[list[str]]:
    """Augmented images per second of one core, from samples.arrow and by Pillow from a folder of the same JPEGs."""
    torch.set_num_threads(1)
    samples, files = stored_photographs(folder)
    for augment in (AugmentConfig("crop", crop_scale=(0.08, 1.0)), AugmentConfig("deit", crop_scale=(0.08, 1.0))):
        ours_s, plain_s = median_s(partial(_load, samples, augment), partial(_load_plainly, files, _plain(augment)))
        what = f"loader, {STORED}-px photographs to {SIZE} px, augmentation {augment.kind}, one core"
        yield row(what, len(samples), ours_s, "images", "Pillow over a folder", plain_s)


def _load(samples: Samples, augment: AugmentConfig) -> None:
    transform = build_transform(augment, SIZE)
    for number in range(len(samples)):
        transform(samples.read(number), generator_of(0, number))


def _load_plainly(files: list[Path], transform: Callable[[Path], torch.Tensor]) -> None:
    for file in files:
        transform(file)


def _plain(config: AugmentConfig) -> Callable[[Path], torch.Tensor]:
    """Return the augmentation as the field writes it: timm's and torchvision's transforms on Pillow's images."""
    from timm.data.transforms_factory import create_transform
    from torchvision.transforms import Compose, InterpolationMode, PILToTensor, RandomHorizontalFlip, RandomResizedCrop

    if config.kind == "deit":
        transform = create_transform(
            SIZE, is_training=True, scale=config.crop_scale, auto_augment="rand-m9-mstd0.5-inc1", re_prob=0.25,
            re_mode="pixel", interpolation="bicubic",
        )  # fmt: skip
    else:
        crop = RandomResizedCrop(SIZE, config.crop_scale, interpolation=InterpolationMode.BICUBIC)
        transform = Compose([crop, RandomHorizontalFlip(), PILToTensor()])
    return lambda path: transform(Image.open(path).convert("RGB"))


def step(folder: Path) -> Iterator[list[str]]:
    """Phase 1 of the demo: images per second, the share of its time spent waiting for data, memory over an epoch."""
    make_images(folder)
    recipe = demo()
    yield from _steps("the demo", folder, recipe.model, replace(recipe.phase1, steps=60), settled=10)


def step_of_vit_s(folder: Path) -> Iterator[list[str]]:
    """Phase 1 of the ViT-S recipe on a CPU, from random weights, on photographs as CC4M's are stored."""
    stored_photographs(folder)
    recipe = cc4m_vit_s()
    model = recipe.model
    image, text = replace(model.image, pretrained=None), replace(model.text, pretrained=None)
    config = replace(
        recipe.phase1,
        steps=10,
        batch_size=16,
        tokenizer_size=200,
        loader_workers=1,
        compute=ComputeConfig(),
        launch=LaunchConfig(),
    )
    yield from _steps("the ViT-S recipe", folder, replace(model, image=image, text=text), config, settled=3)


def _steps(what: str, folder: Path, model: ModelConfig, config: TrainConfig, settled: int) -> Iterator[list[str]]:
    config = replace(config, checkpoint_every=config.steps, validation=None)
    train_here(Phase(folder, folder / "phase1", model, config))
    lines = [json.loads(line) for line in (folder / "phase1" / "metrics.jsonl").read_text().splitlines()][settled:]
    seconds = sum(config.batch_size / line["samples_per_s"] for line in lines)
    waited = sum(line["waited_s"] for line in lines)
    rate = config.batch_size * len(lines) / seconds
    setting = f"phase 1 of {what}, batch {config.batch_size}, {config.launch.threads} threads"
    yield [setting, f"{rate:,.2f} images/s", "waiting for data", f"{waited / seconds:.2%}"]
    before, after = lines[0], lines[-1]
    yield [
        f"{setting}: memory at most after step {after['step']} ({after['epoch']:.1f} epochs)",
        f"{after['memory_mb']:,.0f} MB",
        f"after step {before['step']}: {before['memory_mb']:,.0f} MB",
        f"{after['memory_mb'] / before['memory_mb']:.3f}",
    ]
