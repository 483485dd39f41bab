"""GroupViT of transformers on random weights against ours."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from transformers import GroupViTConfig, GroupViTModel, GroupViTTextConfig, GroupViTVisionConfig

from model import ModelConfig, OVSegmentor, Tokens, load_groupvit
from model.groupvit import groupvit_config as ours_of
from model.presets import groupvit_vit_s


def random_model(vision: dict[str, Any], text: dict[str, Any]) -> Any:
    """Return a GroupViTModel in which no weight is at its symmetric start."""
    torch.manual_seed(0)
    config = GroupViTConfig(vision_config=vision, text_config=text)
    model = GroupViTModel(config).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.03 * torch.randn(parameter.shape, generator=generator)
        for name, statistic in model.named_buffers():
            if name.endswith("running_var"):
                statistic += torch.rand(statistic.shape, generator=generator)
    return model


SMALL_VISION = {
    "hidden_size": 32, "intermediate_size": 128, "num_attention_heads": 4, "depths": [2, 1, 1], "num_hidden_layers": 4,
    "num_group_tokens": [12, 5, 0], "num_output_groups": [12, 5, 8], "image_size": 64, "patch_size": 8,
}  # fmt: skip
SMALL_TEXT = {
    "vocab_size": 60, "hidden_size": 24, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 16, "bos_token_id": 58, "eos_token_id": 59,
}  # fmt: skip


def captions(vocabulary: int, length: int) -> Tokens:
    """Return captions of different lengths that end with the end token, the largest id, and are padded with it."""
    ids = torch.randint(1, vocabulary - 2, (3, length), generator=torch.Generator().manual_seed(2))
    mask = torch.ones_like(ids)
    for row, words in enumerate((length, length - 3, 4)):
        ids[row, words - 1 :] = vocabulary - 1
        mask[row, words:] = 0
    return Tokens(ids, mask)


def segmentation_logits(model: OVSegmentor, image: torch.Tensor, text_CE: torch.Tensor) -> torch.Tensor:
    """Return the logits as transformers defines them: groups' logits spread by the soft assignment of the pixels."""
    features = model.encode_image(image)
    logits_BGC = model.scale() * F.normalize(features.group_embedding_BGE, dim=-1) @ F.normalize(text_CE, dim=-1).T
    soft_BGHW = features.assignment.soft_BGN.unflatten(2, features.grid)
    soft_BGHW = F.interpolate(soft_BGHW, image.shape[-2:], mode="bilinear")
    return model.scale() * torch.einsum("bgc,bghw->bchw", logits_BGC, soft_BGHW)


@pytest.mark.parametrize("size", ["small", "default"])
def test_embeddings_and_segmentation_equal_transformers(size: str) -> None:
    theirs = random_model(*((SMALL_VISION, SMALL_TEXT) if size == "small" else ({}, {})))
    ours = load_groupvit(theirs)
    side = theirs.config.vision_config.image_size
    image = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(3))
    text = captions(theirs.config.text_config.vocab_size, 12)
    with torch.no_grad():
        expected = theirs(
            text.input_ids_BL, image, attention_mask=text.attention_mask_BL, output_segmentation=True
        )  # fmt: skip
        image_BE, text_BE = ours.encode_image(image).embedding_BE, ours.encode_text(text).embedding_BE
        found = segmentation_logits(ours, image, text_BE)
    assert expected.text_embeds.std(dim=0).min() > 1e-4  # captions differ, so that a wrong token would show
    torch.testing.assert_close(F.normalize(image_BE, dim=-1), expected.image_embeds, atol=1e-5, rtol=0)
    torch.testing.assert_close(F.normalize(text_BE, dim=-1), expected.text_embeds, atol=1e-5, rtol=0)
    scale = expected.segmentation_logits.abs().max()
    torch.testing.assert_close(found / scale, expected.segmentation_logits / scale, atol=1e-4, rtol=0)


def test_every_weight_of_transformers_is_accounted_for() -> None:
    theirs = random_model(SMALL_VISION, SMALL_TEXT)
    ours = load_groupvit(theirs)
    report = ours.load_report
    assert report is not None
    assert set(report.loaded) == set(ours.state_dict())
    assert report.new == ()
    assert all(key.endswith(("pre_assign_attn.attn.k_proj.bias", "position_ids")) for key in report.unused)


def test_a_folder_of_transformers_and_ours_hold_the_same_model(tokenizer: Any, tmp_path: Path) -> None:
    theirs = random_model(SMALL_VISION, {**SMALL_TEXT, "vocab_size": len(tokenizer), "eos_token_id": 3})
    theirs.save_pretrained(tmp_path / "theirs")
    tokenizer.save_pretrained(tmp_path / "theirs")
    ours = load_groupvit(tmp_path / "theirs")
    ours.save_pretrained(tmp_path / "ours")
    back = OVSegmentor.from_pretrained(tmp_path / "ours")
    tokens = back.tokenize(["a cat on the sofa", "a dog"])
    direct = load_groupvit(theirs)
    assert torch.equal(back.encode_text(tokens).embedding_BE, direct.encode_text(tokens).embedding_BE)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"hidden_act": "relu"}, "vision_config has {'hidden_act': 'relu'}; this model knows"),
     ({"intermediate_size": 64}, "vision_config has {'intermediate_size': 2.0}")],
)  # fmt: skip
def test_a_config_without_a_counterpart_is_refused(change: dict[str, Any], message: str) -> None:
    config = GroupViTConfig(vision_config={**SMALL_VISION, **change}, text_config=SMALL_TEXT)
    with pytest.raises(ValueError, match=message):
        ours_of(config)


def test_the_preset_has_the_sizes_of_transformers_default() -> None:
    found = ours_of(GroupViTConfig(vision_config=GroupViTVisionConfig(), text_config=GroupViTTextConfig()))
    preset = groupvit_vit_s()
    assert replace(found.image, drop_path=preset.image.drop_path) == preset.image
    assert found.text == preset.text


def test_groupvit_trains_all_of_its_weights(groupvit_config: ModelConfig, make_model: Any, make_batch: Any) -> None:
    model = make_model(groupvit_config).train()
    batch = make_batch(model, cross=False)
    losses = model.losses(batch)
    assert losses.entity is None
    assert losses.nouns is not None
    losses.total.backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []
    assert model.encode_image(batch.image).assignment.soft_BGN.shape == (4, 3, 16)
    assert model.patch_embedding(batch.image).shape == (4, 16, 12)
