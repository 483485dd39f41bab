"""A tokenizer, small configs and batches for the tests of the model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch

from model import Batch, ImageConfig, LossConfig, ModelConfig, OVSegmentor, TextConfig, initial, learn_wordpiece
from model.presets import groupvit_vit_s

CAPTIONS = [
    "a photo of a cat on the grass",
    "a small dog and a nice bird near the red water",
    "two people sit on a sofa",
    "a cat and a dog on the sofa in front of a large window",
]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def tokenizer() -> Any:
    return learn_wordpiece(CAPTIONS, 120)


@pytest.fixture
def paper_config() -> ModelConfig:
    """Return the architecture of the paper, tiny and without dropout."""
    return ModelConfig(
        image=ImageConfig(
            image_size=32, patch_size=8, width=24, num_heads=2, depths=(1, 1), num_group_tokens=(6,), num_groups=(4,),
            drop_path=0.0,
        ),
        text=TextConfig(width=16, num_layers=1, num_heads=2, dropout=0.0, max_length=24),
        embedding_width=12,
        projector_width=32,
        completion_heads=2,
    )  # fmt: skip


@pytest.fixture
def small_config(paper_config: ModelConfig) -> ModelConfig:
    """Return the architecture of small scenes, tiny."""
    image = replace(
        paper_config.image, stem="conv", patch_size=4, depths=(0, 0), query="assignment", similarity="cosine"
    )
    return replace(paper_config, image=image, loss=LossConfig(nouns=1.0), projector="linear")


@pytest.fixture
def groupvit_config() -> ModelConfig:
    """Return the architecture of GroupViT, tiny."""
    preset = groupvit_vit_s()
    image = replace(
        preset.image, image_size=32, patch_size=8, width=24, num_heads=2, depths=(1, 1, 1), num_group_tokens=(6, 3),
        num_groups=(6, 3),
    )  # fmt: skip
    text = replace(preset.text, width=16, num_layers=2, num_heads=2, max_length=24)
    return replace(preset, image=image, text=text, embedding_width=12, projector_width=32)


def _model(config: ModelConfig, tokenizer: Any, seed: int = 0) -> OVSegmentor:
    """Return a model whose every part matters: weights are moved off their symmetric start."""
    model = initial(config, tokenizer, seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    return model


def _batch(model: OVSegmentor, size: int = 4, seed: int = 0, cross: bool = True) -> Batch:
    """Return a batch with all parts."""
    generator = torch.Generator().manual_seed(seed)
    side = model.config.image.image_size
    image, cross_image = torch.randn(2, size, 3, side, side, generator=generator)
    image = image + 2 * torch.randn(size, 3, 1, 1, generator=generator)  # a colour of its own
    captions = [CAPTIONS[row % len(CAPTIONS)] + " now" * (row // len(CAPTIONS)) for row in range(size)]
    answers = ["a photo of a cat", "a photo of a dog and bird", "a photo of people", "a photo of a cat"]
    return Batch(
        image=image,
        caption=model.tokenize(captions),
        question=model.tokenize([caption.replace("cat", "[MASK]").replace("dog", "[MASK]") for caption in captions]),
        answer=model.tokenize([answers[row % 4] for row in range(size)]),
        cross_image=cross_image if cross else None,
        cross_entity=model.tokenize([answers[row % 3] for row in range(size)]) if cross else None,
        nouns=model.tokenize(["a cat", "a dog", "the sofa"]),
        noun_labels_BN=torch.rand(size, 3, generator=generator) > 0.4,
    )


@pytest.fixture
def make_model(tokenizer: Any) -> Callable[..., OVSegmentor]:
    return lambda config, seed=0: _model(config, tokenizer, seed)


@pytest.fixture
def make_batch() -> Callable[..., Batch]:
    return _batch
