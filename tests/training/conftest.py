"""A small data folder of coloured discs, drawn by the tests."""

from __future__ import annotations

import io
import multiprocessing
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image, ImageDraw

from curation.images import write_partners, write_samples
from curation.schema import SAMPLES, image_key
from model import ImageConfig, LossConfig, ModelConfig, TextConfig
from training.config import AugmentConfig, OptimConfig, PromptConfig, TrainConfig

COLOURS = {"cat": "red", "dog": "green", "boat": "blue", "car": "yellow"}
SIZE = 32


def picture(entity: str, seed: int) -> bytes:
    """Return a JPEG with a disc of the entity's colour."""
    generator = np.random.default_rng(seed)
    image = Image.new("RGB", (SIZE, SIZE), tuple(int(value) for value in generator.integers(80, 200, 3)))
    x, y = (int(value) for value in generator.integers(8, SIZE - 8, 2))
    ImageDraw.Draw(image).ellipse((x - 7, y - 7, x + 7, y + 7), fill=COLOURS[entity])
    file = io.BytesIO()
    image.save(file, "JPEG")
    return file.getvalue()


def caption(entity: str, ground: str) -> dict[str, object]:
    """Return a caption that names the entity and the ground, both nouns."""
    text = f"A small {entity} on the {ground}."
    spans = [{"start": text.index(noun), "end": text.index(noun) + len(noun)} for noun in (entity, ground)]
    return {"text": text, "mentions": [{"entity": entity, **spans[0]}], "nouns": spans}


def write_data(folder: Path, count: int = 48, broken: Sequence[int] = ()) -> Path:
    """Write images/ and pairs/ of `count` images; the rows in `broken` hold bytes that are no image."""
    names = list(COLOURS)
    keys = sorted(image_key(f"http://127.0.0.1/{number}.jpg") for number in range(count))
    entities = [names[row % len(names)] for row in range(count)]
    rows = []
    (folder / "images").mkdir(parents=True)
    with tarfile.open(folder / "images" / "00000.tar", "w") as shard:
        for row, (key, entity) in enumerate(zip(keys, entities, strict=True)):
            data = b"no image" if row in broken else picture(entity, row)
            member = tarfile.TarInfo(f"{key}.jpg")
            member.size = len(data)
            offset = shard.offset + tarfile.BLOCKSIZE
            shard.addfile(member, io.BytesIO(data))
            captions = [caption(entity, ground) for ground in ("grass", "sand")[: 1 + row % 2]]
            rows.append(dict(zip(SAMPLES.names, (key, 0, None, offset, len(data), SIZE, SIZE, captions), strict=True)))
    write_samples(folder / "images", [pa.Table.from_pylist(rows, SAMPLES)], digest=f"test-{count}")
    if count:
        partners = np.array([[(row + 4 * k) % count for k in (1, 2)] for row in range(count)], dtype=np.int32)
        codes = np.array([[row % len(names)] * 2 for row in range(count)], dtype=np.int32)
        (folder / "pairs").mkdir()
        write_partners(folder / "pairs", [(partners, codes)], names, f"test-{count}")
    return folder


def tiny_model() -> ModelConfig:
    """Return a model of all parts and of seconds."""
    return ModelConfig(
        image=ImageConfig(
            image_size=SIZE,
            stem="conv",
            patch_size=4,
            width=16,
            num_heads=2,
            depths=(1, 0),
            num_group_tokens=(4,),
            num_groups=(3,),
            query="assignment",
            similarity="cosine",
            drop_path=0.1,
        ),
        text=TextConfig(width=16, num_layers=1, num_heads=2, dropout=0.1, max_length=24),
        loss=LossConfig(nouns=1.0, share_positives=True),
        embedding_width=16,
        projector_width=32,
    )


def tiny_config(**changes: object) -> TrainConfig:
    """Return a phase of a few steps."""
    config = TrainConfig(
        steps=6,
        batch_size=8,
        augment=AugmentConfig(kind="flip"),
        prompts=PromptConfig(extra_nouns=("grass", "sand")),
        optim=OptimConfig(warmup_steps=2),
        tokenizer_size=200,
        checkpoint_every=2,
        log_every=2,
    )
    return replace(replace(config, launch=replace(config.launch, threads=1)), **changes)  # type: ignore[arg-type]


@pytest.fixture(name="tiny_config", scope="session")
def tiny_config_fixture() -> Callable[..., TrainConfig]:
    """Return the function that makes a config of a few steps, with changes."""
    return tiny_config


@pytest.fixture(name="tiny_model", scope="session")
def tiny_model_fixture() -> ModelConfig:
    """Return a model of all parts and of seconds."""
    return tiny_model()


@pytest.fixture(name="write_data", scope="session")
def write_data_fixture() -> Callable[..., Path]:
    """Return the function that writes a data folder."""
    return write_data


@pytest.fixture(scope="session")
def start() -> Callable[..., BaseProcess]:
    """Return a function that runs code in a process of its own, with names given to it.

    The processes fork from one that has imported training but has not run anything: torch's threads survive no fork.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["training.loop", "transformers.models.bert.modeling_bert"])

    def start_process(code: str, **names: object) -> BaseProcess:
        process = context.Process(target=exec, args=(code, names), daemon=True)
        process.start()
        return process

    return start_process


@pytest.fixture(scope="session")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder of 48 images."""
    return write_data(tmp_path_factory.mktemp("data"))
