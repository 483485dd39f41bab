"""Training: what the loader yields, and where the time of a step of the demo's recipe goes."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from curation.images import Samples, shard_name, write_samples
from curation.schema import SAMPLES
from flows.recipes_small import demo
from tests.benchmarks.curation import make_images
from tests.benchmarks.timing import median_s, row
from tests.conftest import SHARED
from training.config import AugmentConfig
from training.data import generator_of
from training.loop import train_here
from training.phase import Phase
from training.transforms import build_transform

SIZE, STORED, NUM_PHOTOS = 224, 288, 300


def loader(folder: Path) -> Iterator[list[str]]:
    """Augmented images per second of one core, from samples.arrow and by Pillow from a folder of the same JPEGs."""
    torch.set_num_threads(1)
    samples, files = _store(folder)
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


def _store(folder: Path) -> tuple[Samples, list[Path]]:
    """Write photographs (drawn ones where there are none) as a shard and as files; return both, in the same order."""
    images_dir = folder / "images"
    images_dir.mkdir()
    found = sorted((SHARED / "real" / "photos").glob("*.jpg"))[:NUM_PHOTOS]
    noise = np.random.default_rng(0)
    shard, rows, files = b"", [], []
    for key in range(NUM_PHOTOS):
        if found:
            image = Image.open(found[key % len(found)]).convert("RGB")
        else:
            image = Image.fromarray(noise.integers(0, 256, (48, 64, 3), np.uint8))
        scale = STORED / min(image.size)
        content = io.BytesIO()
        image.resize((round(image.width * scale), round(image.height * scale))).save(content, "JPEG", quality=90)
        files.append(folder / f"{key}.jpg")
        files[-1].write_bytes(content.getvalue())
        place = {"key": key, "shard": 0, "offset": len(shard), "length": len(content.getvalue())}
        rows.append({**place, "captions": [{"text": "a photo", "mentions": []}]})
        shard += content.getvalue()
    (images_dir / shard_name(0)).write_bytes(shard)
    write_samples(images_dir, [pa.Table.from_pylist(rows, SAMPLES)], "photos")
    return Samples(images_dir), files


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
    """Images per second of phase 1, and the share of its time spent waiting for data."""
    make_images(folder)
    recipe = demo()
    config = replace(recipe.phase1, steps=60, checkpoint_every=60, validation=None)
    train_here(Phase(folder, folder / "phase1", recipe.model, config))
    lines = [json.loads(line) for line in (folder / "phase1" / "metrics.jsonl").read_text().splitlines()][10:]
    seconds = sum(config.batch_size / line["samples_per_s"] for line in lines)
    waited = sum(line["waited_s"] for line in lines)
    images = config.batch_size * len(lines)
    yield [
        "phase 1 of the demo, batch 64, 2 threads",
        f"{images / seconds:,.0f} images/s",
        "waiting for data",
        f"{waited / seconds:.1%}",
    ]
