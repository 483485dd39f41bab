"""Vision transformers of others as a start, from files with the true names and wrappers."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from torch import Tensor

from model import ImageConfig, ModelConfig, initial
from model.backbone import load_backbone
from model.grouping import ImageEncoder

CONFIG = ImageConfig(
    image_size=32, patch_size=8, width=24, num_heads=2, depths=(2, 1), num_group_tokens=(6,), num_groups=(4,)
)


def vit(**changes: Any) -> Any:
    """Return timm's vision transformer of the same sizes, no weight at its symmetric start."""
    torch.manual_seed(0)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 3, "num_heads": 2, "num_classes": 5}
    model = timm.models.VisionTransformer(**{**sizes, **changes}).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def under(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in state.items()}


def openai_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights under the names of OpenAI's CLIP."""
    names = {
        "patch_embed.proj.weight": "conv1.weight", "cls_token": "class_embedding", "pos_embed": "positional_embedding",
        "norm_pre.": "ln_pre.", "norm.": "ln_post.", "blocks.": "transformer.resblocks.", ".norm1.": ".ln_1.",
        ".norm2.": ".ln_2.", "attn.qkv.weight": "attn.in_proj_weight", "attn.qkv.bias": "attn.in_proj_bias",
        "attn.proj.": "attn.out_proj.", ".mlp.fc1.": ".mlp.c_fc.", ".mlp.fc2.": ".mlp.c_proj.",
    }  # fmt: skip
    renamed = {}
    for key, value in state.items():
        name = key
        for old, new in names.items():
            if old != "norm." or key.startswith("norm."):
                name = name.replace(old, new)
        renamed[f"visual.{name}"] = value.squeeze() if key in ("cls_token", "pos_embed") else value
    return renamed


FORMS = {
    "DINO, bare": lambda state: state,
    "DINO, teacher": lambda state: {"teacher": under("backbone.", state), "epoch": 3},
    "DeiT": lambda state: {"model": state},
    "MoCo v3": lambda state: {"state_dict": under("module.base_encoder.", state), "arch": "vit"},
    "DDP": lambda state: {"state_dict": under("module.", state)},
}


@pytest.mark.parametrize("form", FORMS)
def test_the_blocks_compute_what_they_computed_there(form: str, tmp_path: Path) -> None:
    theirs, file = vit(), tmp_path / "weights.pth"
    torch.save(FORMS[form](theirs.state_dict()), file)
    encoder = ImageEncoder(CONFIG).eval()
    report = load_backbone(encoder, CONFIG, str(file))
    image = torch.randn(2, 3, 32, 32)
    x, grid = encoder.embed(image)
    assert grid == (4, 4)
    torch.testing.assert_close(x, theirs.patch_embed(image) + theirs.pos_embed[:, 1:])
    blocks = [block for stage in encoder.stages for block in stage.blocks]
    for ours, other in zip(blocks, theirs.blocks, strict=True):
        torch.testing.assert_close(ours(x), other(x), atol=1e-4, rtol=1e-4)  # their norms add 1e-6, ours 1e-5
    assert {"cls_token", "head.weight", "head.bias"} <= set(report.unused)
    assert len(report.loaded) + len(report.unused) == len(theirs.state_dict())
    assert set(report.loaded) | set(report.new) == set(encoder.state_dict())
    assert all(".grouping." in key or key.endswith(".token") for key in report.new)


def test_clip_of_openai_is_understood(tmp_path: Path) -> None:
    theirs, file = vit(pre_norm=True, num_classes=0), tmp_path / "clip.pt"
    state = openai_names({key: value for key, value in theirs.state_dict().items() if key != "patch_embed.proj.bias"})
    torch.save(state, file)
    encoder = ImageEncoder(CONFIG)
    report = load_backbone(encoder, CONFIG, str(file))
    first: Any = encoder.stages[0]
    torch.testing.assert_close(first.blocks[0].attn.qkv.weight, theirs.blocks[0].attn.qkv.weight)
    assert {"norm_pre.weight", "norm_pre.bias", "cls_token"} <= set(report.unused)


def test_positions_of_another_image_size_are_resampled(tmp_path: Path) -> None:
    torch.save(vit(img_size=64).state_dict(), tmp_path / "weights.pth")
    encoder = ImageEncoder(CONFIG)
    load_backbone(encoder, CONFIG, str(tmp_path / "weights.pth"))
    assert encoder.positions.table.shape == (1, 16, 24)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (vit(depth=2), "a vision transformer of 2 blocks and width 24; .* need 3 blocks of 24"),
        (vit(embed_dim=48), "a vision transformer of 3 blocks and width 48; .* need 3 blocks of 24"),
        (torch.nn.Linear(2, 2), "expected a vision transformer .* found weight, bias"),
    ],
)
def test_other_models_are_refused(source: torch.nn.Module, message: str, tmp_path: Path) -> None:
    torch.save(source.state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ValueError, match=message):
        load_backbone(ImageEncoder(CONFIG), CONFIG, str(tmp_path / "weights.pth"))


def test_a_name_that_is_neither_file_nor_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"image.pretrained = 'vit_of_mine': neither a file nor a model of timm"):
        load_backbone(ImageEncoder(CONFIG), CONFIG, "vit_of_mine")


def test_a_new_model_starts_from_the_weights_that_its_config_names(
    tokenizer: Any, paper_config: ModelConfig, tmp_path: Path
) -> None:
    theirs = vit()
    torch.save(theirs.state_dict(), tmp_path / "dino.pth")
    config = replace(paper_config, image=replace(CONFIG, pretrained=str(tmp_path / "dino.pth")))
    model = initial(config, tokenizer, 0)
    torch.testing.assert_close(model.image_encoder.norm.weight, theirs.norm.weight)
