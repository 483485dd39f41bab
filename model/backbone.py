"""Vision transformers of others as a start of the image encoder: DINO, DeiT, MoCo, ImageNet, CLIP.

Patch embedding, position table, blocks and last norm are theirs; group tokens and grouping are new. What stands for a
whole image in them (class token, heads) has no place here. Source: paper section 4.1 (DINO); NOTES 1.2.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import LoadReport, load_weights, read_checkpoint
from model.config import ImageConfig
from model.grouping import ImageEncoder

# Where the training codes keep the state dict, and what they write before its names; the first that fits is taken.
WRAPPERS = ("state_dict", "model", "teacher", "student")
PREFIXES = ("module.base_encoder.", "base_encoder.", "module.backbone.", "backbone.", "module.")


def load_backbone(encoder: ImageEncoder, config: ImageConfig, source: str) -> LoadReport:
    """Fill the encoder with the weights of a vision transformer; return the account of every key.

    Args:
        encoder: built from `config`; its stages' blocks are filled in order.
        config: gives sizes. Depths must add up to the source's; positions and patches of other sizes are resampled.
        source: a file (bare state dict, or as DINO, DeiT, MoCo v3 and OpenAI's CLIP wrap it), or a name of timm's.

    Raises:
        ValueError: no vision transformer, or one of another width or depth.
    """
    state = _timm_state(_read(source), config, source)
    depth = 1 + max((int(found.group(1)) for key in state if (found := re.match(r"blocks\.(\d+)\.", key))), default=-1)
    width = state["patch_embed.proj.weight"].shape[0]
    if (depth, width) != (sum(config.depths), config.width):
        raise ValueError(
            f"{source}: a vision transformer of {depth} blocks and width {width}; image.depths = {config.depths} and "
            f"image.width = {config.width} need {sum(config.depths)} blocks of {config.width}"
        )
    weights = {_own_name(key, config): value for key, value in state.items()}
    num_positions = (config.image_size // config.patch_size) ** 2
    table = weights.pop("pos_embed")
    weights["positions.table"] = table[:, table.shape[1] - num_positions :]
    known = {key: value for key, value in weights.items() if key in encoder.state_dict()}
    may_be_new = [key for key in encoder.state_dict() if re.search(r"\.(token$|hand_over\.|grouping\.)", key)]
    return load_weights(encoder, known, source, may_be_new, set(weights) - set(known))


def _read(source: str) -> Mapping[str, Any]:
    if not Path(source).is_file():
        import timm

        if not timm.is_model(source):
            raise ValueError(f"image.pretrained = {source!r}: neither a file nor a model of timm (timm.list_models())")
        weights: Mapping[str, Any] = timm.create_model(source, pretrained=True).state_dict()
        return weights
    if Path(source).suffix == ".safetensors":
        from safetensors.torch import load_file

        return load_file(source)
    found: Any = read_checkpoint(source)
    for name in WRAPPERS:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    return found if isinstance(found, Mapping) else {}


def _timm_state(found: Mapping[str, Any], config: ImageConfig, source: str) -> dict[str, Tensor]:
    """Return the weights under timm's names, positions and patches resampled to the config's sizes."""
    from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn

    state = {key: value for key, value in found.items() if isinstance(value, Tensor)}
    for prefix in PREFIXES:
        if any(key.startswith(f"{prefix}patch_embed.") for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    is_clip = any(key.endswith("visual.class_embedding") for key in state)
    if not is_clip and not {"patch_embed.proj.weight", "pos_embed"} <= set(state):
        raise ValueError(
            f"{source}: expected a vision transformer with patch_embed.*, pos_embed and blocks.*, "
            f"found {', '.join(list(state)[:3]) or 'no weights'}, ..."
        )
    like = VisionTransformer(
        img_size=config.image_size, patch_size=config.patch_size, embed_dim=config.width, depth=1, num_heads=1,
        num_classes=0, pre_norm=is_clip,
    )  # fmt: skip
    named: dict[str, Tensor] = checkpoint_filter_fn(state, like)
    named.setdefault("patch_embed.proj.bias", torch.zeros(config.width))  # CLIP has none
    return named


def _own_name(key: str, config: ImageConfig) -> str:
    """Return our name of a weight of timm's; a name that has no counterpart stays."""
    found = re.match(r"blocks\.(\d+)\.(.*)", key)
    if found is None:
        return key.replace("patch_embed.proj.", "stem.project.")
    index, stage = int(found.group(1)), 0
    while index >= config.depths[stage]:
        index, stage = index - config.depths[stage], stage + 1
    rest = found.group(2).replace("mlp.fc1.", "mlp.0.").replace("mlp.fc2.", "mlp.2.")
    return f"stages.{stage}.blocks.{index}.{rest}"
