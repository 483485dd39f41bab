from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from model import Batch, ImageConfig, LossConfig, ModelConfig, OVSegmentor, TextConfig, initial, learn_wordpiece
from training.accumulate import TRAINED, backward_in_parts, join, split
from training.word_masking import WordMasking

CAPTIONS = ["a cat on a sofa", "a small dog near the red water", "two people", "a bird", "a bus and a car in a street",
            "a horse", "the cat and the dog on the grass", "a boat on the water"]  # fmt: skip
CONFIG = ModelConfig(
    image=ImageConfig(
        image_size=32, patch_size=8, width=24, num_heads=2, depths=(1, 1), num_group_tokens=(6,), num_groups=(4,),
        drop_path=0.0, gumbel=False,
    ),
    text=TextConfig(width=16, num_layers=1, num_heads=2, dropout=0.0, max_length=24),
    loss=LossConfig(nouns=1.0, noun_pooling="groups", words=1.0),
    embedding_width=12,
    projector_width=32,
    completion_heads=2,
)  # fmt: skip


def build(config: ModelConfig = CONFIG, dtype: torch.dtype = torch.float32, phase: int = 2) -> OVSegmentor:
    model = initial(config, learn_wordpiece(CAPTIONS, 100), 0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn(parameter.shape, generator=generator)
    model = model.to(dtype)
    if phase == 2:
        model.start_momentum()
        model.freeze_text()
    return model.train()


def batch_for(model: OVSegmentor, phase: int = 2) -> Batch:
    generator = torch.Generator().manual_seed(0)
    image, cross_image = torch.randn(2, 8, 3, 32, 32, generator=generator).to(model.logit_scale.dtype)
    answers = ["a photo of a cat", "a photo of a dog"] * 4
    masked, masked_target_BL = WordMasking.of(model.tokenizer)(model.tokenize(CAPTIONS), range(8))
    return Batch(
        image=image,
        caption=model.tokenize(CAPTIONS),
        question=model.tokenize([caption.replace("cat", "[MASK]") for caption in CAPTIONS]),
        answer=model.tokenize(answers),
        cross_image=cross_image if phase == 2 else None,
        cross_entity=model.tokenize(answers) if phase == 2 else None,
        has_cross_B=torch.tensor([True] * 7 + [False]) if phase == 2 else None,
        nouns=model.tokenize(["a cat", "a dog", "the water"]),
        noun_labels_BN=torch.rand(8, 3, generator=generator) > 0.5,
        positives_BB=torch.eye(8, dtype=torch.bool),
        masked=masked,
        masked_target_BL=masked_target_BL,
    )


def after(model: OVSegmentor, act: Callable[[], Any]) -> tuple[Any, dict[str, Tensor]]:
    model.zero_grad()
    before = copy.deepcopy(dict(model.named_buffers()))
    losses = act()
    model.load_state_dict(before, strict=False)  # running statistics, which the act has moved
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def whole(model: OVSegmentor, batch: Batch) -> Any:
    losses = model.losses(batch)
    losses.total.backward()
    return losses


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float64, 1e-12), (torch.float32, 2e-5)])
@pytest.mark.parametrize("num_parts", [2, 4, 8])
@pytest.mark.parametrize("phase", [1, 2])
def test_parts_give_the_loss_and_gradient_of_the_whole(
    dtype: torch.dtype, bound: float, num_parts: int, phase: int
) -> None:
    model = build(dtype=dtype, phase=phase)
    batch = batch_for(model, phase)
    expected, expected_grads = after(model, lambda: whole(model, batch))
    found, grads = after(model, lambda: backward_in_parts(model, batch, num_parts))
    assert (expected.mask is None) == (phase == 1)
    for name in ("contrastive", "entity", "nouns", "words", "total"):
        torch.testing.assert_close(getattr(found, name), getattr(expected, name), atol=bound, rtol=bound)
    assert grads.keys() == expected_grads.keys()
    assert any(name.startswith("text_encoder") for name in grads) == (phase == 1)  # frozen in phase 2
    largest = max(grad.norm().item() for grad in expected_grads.values())
    for name, grad in expected_grads.items():
        assert (grads[name] - grad).norm().item() <= bound * max(grad.norm().item(), largest), name


def test_the_noise_of_a_part_is_the_same_in_both_passes() -> None:
    """Against each part encoded once, with gradient, from the same generator states."""
    noisy = replace(
        CONFIG, image=replace(CONFIG.image, gumbel=True, drop_path=0.3), text=replace(CONFIG.text, dropout=0.2)
    )
    model = build(noisy, torch.float64, phase=1)
    batch = batch_for(model, phase=1)

    def once() -> None:
        torch.manual_seed(3)
        encoded = join([model.encode(part) for part in split(batch, 4)])
        model.losses_of(encoded, batch).total.backward()  # type: ignore[no-untyped-call]

    def twice() -> None:
        torch.manual_seed(3)
        backward_in_parts(model, batch, 4)

    (_, expected), (_, found) = after(model, once), after(model, twice)
    for name, grad in expected.items():
        torch.testing.assert_close(found[name], grad, atol=1e-10, rtol=1e-8, msg=name)
    (_, other) = after(model, lambda: whole(model, batch))
    assert not torch.allclose(other["logit_scale"], expected["logit_scale"])  # there was noise


def test_only_one_part_is_held_with_its_activations() -> None:
    model = build(phase=1)
    batch = batch_for(model, phase=1)
    sizes: list[int] = []
    block = model.image_encoder.stages[0].blocks[0]  # type: ignore[union-attr, index]
    block.register_forward_hook(lambda _, inputs, __: sizes.append(len(inputs[0])))
    backward_in_parts(model, batch, 4)
    assert sizes == [2] * 8  # four parts, twice


def test_a_batch_that_does_not_split_is_refused() -> None:
    model = build(phase=1)
    with pytest.raises(ValueError, match="a batch of 8 samples does not split into 3 equal parts"):
        backward_in_parts(model, batch_for(model, phase=1), 3)


def test_every_output_with_a_gradient_is_listed() -> None:
    model = build(phase=1)
    encoded = model.encode(batch_for(model, phase=1))
    with_gradient = {name for name, value in vars(encoded).items() if value is not None and value.requires_grad}
    assert with_gradient == set(TRAINED)
