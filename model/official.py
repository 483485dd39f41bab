"""Released checkpoints of OVSegmentor: from the authors' names and config to ours."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from model.checkpoint import load_weights, read_checkpoint, rename
from model.config import ImageConfig, LossConfig, ModelConfig, TextConfig
from model.paper import PaperSegmentor

# In order; each is a pattern of the authors' names and what stands for it in ours. GroupViT's code named the grouping.
GROUPING_RENAMES = (
    (r"\.mlp_inter\.", ".mix_tokens."),
    (r"\.norm_post_tokens\.", ".norm_queries."),
    (r"\.grouping\.norm_x\.", ".grouping.norm_patches."),
    (r"\.grouping\.pre_assign_attn\.", ".grouping.cross."),
    (r"\.grouping\.assign\.", ".grouping."),
    (r"\.norm_new_x\.", ".norm_groups."),
    (r"\.mlp_channels\.", ".mlp."),
)
RENAMES = (
    (r"^img_encoder_momentum\.", "momentum_encoder."),
    (r"^img_encoder\.", "image_encoder."),
    (r"^(\w+_encoder)\.pos_embed$", r"\1.positions.table"),
    (r"^(\w+_encoder)\.patch_embed\.proj\.", r"\1.stem.project."),
    (r"^(\w+_encoder)\.patch_embed\.norm\.", r"\1.stem.norm."),
    (r"\.layers\.(\d+)\.group_token$", r".stages.\1.token"),
    (r"\.layers\.(\d+)\.blocks\.", r".stages.\1.blocks."),
    (r"\.layers\.(\d+)\.downsample\.", r".stages.\1.grouping."),
    (r"\.layers\.(\d+)\.group_projector\.", r".stages.\1.hand_over."),
    *GROUPING_RENAMES,
    (r"\.fc1\.", ".0."),
    (r"\.fc2\.", ".2."),
    (r"^img_projector\.", "image_projector."),
    (r"^bridge_projector\.", "completion_projector."),
    (r"_projector\.linear_hidden\.", "_projector."),
    (r"_projector\.linear_out\.", "_projector.3."),
    (r"^align_proj_img\.", "completion.align_image."),
    (r"^align_proj_text\.", "completion.align_text."),
    (r"^multimodal_groupingblock\.blocks\.0\.norm_tokens\.", "completion.norm_text."),
    (r"^multimodal_groupingblock\.blocks\.0\.norm_x\.", "completion.norm_image."),
    (r"^multimodal_groupingblock\.blocks\.0\.pre_assign_attn\.", "completion.cross."),
    (r"^multimodal_groupingblock\.blocks\.0\.post_attn\.", "completion.block."),
    (r"^multimodal_groupingblock\.blocks\.0\.norm_groups\.", "completion.norm."),
)
# Weights that take part in no result.
UNUSED = (
    r"^logit_scale_mask$",
    r"^multimodal_groupingblock\.blocks\.0\.assign\.",
    r"^text_encoder\.transformer\.pooler\.",
    r"^text_encoder\.transformer\.embeddings\.position_ids$",
    r"\.pre_assign_attn\.attn\.k_proj\.bias$",  # moves all logits of a query alike
)
DEFAULT_HEADS = (8, 8)
"""attention heads of the released configs, though DINO's weights were trained with 12 [1.1]"""


def load_official(
    checkpoint: Mapping[str, Any] | Path | str,
    config: Mapping[str, Any] | None = None,
    text_config: Any = None,
    tokenizer: Any = None,
) -> PaperSegmentor:
    """Return a model in published behaviour with released weights, in eval mode.

    Args:
        checkpoint: a state dict, bare or under the key `model`, or the path of a file that holds one.
        config: the `model:` part of the authors' config; None is ViT-B of stage 2.
        text_config: the text encoder's transformers config, or the folder or hub name of one; None is bert-base.
        tokenizer: what `tokenize` uses; None leaves the model without one.

    Raises:
        ValueError: weights missing or left over, or sizes that the config contradicts.
    """
    name = str(checkpoint) if isinstance(checkpoint, str | Path) else "state dict"
    state = _read(checkpoint, name)
    is_fixed = config is None or config.get("text_encoder", {}).get("fixed", False)
    if text_config is None or isinstance(text_config, str | Path):
        from transformers import AutoConfig, BertConfig

        text_config = BertConfig() if text_config is None else AutoConfig.from_pretrained(text_config)
    model = PaperSegmentor(model_config(state, config or {}, text_config), tokenizer, text_config)
    if any(key.startswith("img_encoder_momentum.") for key in state):
        model.start_momentum()
    weights, unused = translate(state)
    model.load_report = load_weights(model, weights, f"load_official({name})", unused=unused)
    if is_fixed:
        model.freeze_text()
    model.eval()
    return model


def _read(checkpoint: Mapping[str, Any] | Path | str, name: str) -> dict[str, Tensor]:
    found: Any = checkpoint
    if isinstance(checkpoint, str | Path):
        found = read_checkpoint(checkpoint)
    inner = found.get("model", found)
    state = {key.removeprefix("module."): value for key, value in inner.items() if isinstance(value, Tensor)}
    if "img_encoder.patch_embed.proj.weight" not in state:
        first = ", ".join(list(inner)[:3])
        raise ValueError(
            f"load_official({name}): expected img_encoder.* and text_encoder.* weights, found {first}, ..."
        )
    return state


def model_config(state: Mapping[str, Tensor], config: Mapping[str, Any], text_config: Any) -> ModelConfig:
    """Return our config of a released model: sizes from the weights, the rest from the authors' config."""
    image: Mapping[str, Any] = config.get("img_encoder", {})
    width, _, patch_size, _ = state["img_encoder.patch_embed.proj.weight"].shape
    num_patches = state["img_encoder.pos_embed"].shape[-2]
    num_stages = 1 + max(_numbers(state, r"^img_encoder\.layers\.(\d+)\."))
    depths = tuple(
        1 + max(_numbers(state, rf"^img_encoder\.layers\.{stage}\.blocks\.(\d+)\."), default=-1)
        for stage in range(num_stages)
    )
    groupings = [f"img_encoder.layers.{stage}." for stage in range(num_stages - 1)]
    has_entity = any(key.startswith("bridge_projector.") for key in state)
    has_mask = bool(config.get("use_maskloss", True))
    return ModelConfig(
        image=ImageConfig(
            image_size=patch_size * math.isqrt(num_patches),
            patch_size=patch_size,
            stem_norm="layer" if "img_encoder.patch_embed.norm.weight" in state else "none",
            width=width,
            num_heads=tuple(image.get("num_heads", DEFAULT_HEADS)),
            depths=depths,
            num_group_tokens=tuple(state[f"{name}group_token"].shape[1] for name in groupings),
            num_groups=tuple(state[f"{name}downsample.mlp_inter.fc2.weight"].shape[0] for name in groupings),
            drop_path=image.get("drop_path_rate", 0.1),
        ),
        text=TextConfig(
            model_type=text_config.model_type,
            width=text_config.hidden_size,
            num_layers=text_config.num_hidden_layers,
            num_heads=text_config.num_attention_heads,
            dropout=text_config.hidden_dropout_prob,
        ),
        loss=LossConfig(
            entity=1.0 if has_entity and config.get("use_entityloss", True) else 0.0,
            mask=0.1 if has_mask else 0.0,
            mask_threshold=config.get("cross_threshold", 0.6),
            temperature=config.get("contrast_temperature", 0.07),
        ),
        embedding_width=state["img_projector.linear_out.weight"].shape[0],
        projector_width=state["img_projector.linear_out.weight"].shape[1],
    )


def translate(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights under our names, and the names of those that take part in no result."""
    renamed, unused = rename(state, RENAMES, UNUSED)
    translated = {}
    for name, value in renamed.items():
        if name.endswith("positions.table") and value.ndim == 2:
            value = value[None]
        if name.split(".")[0].endswith("_projector") and value.ndim == 3:
            value = value.squeeze(2)  # a convolution over one position
        translated[name] = value
    return translated, unused


def _numbers(state: Mapping[str, Tensor], pattern: str) -> list[int]:
    """Return what the pattern's group matches in the names of the weights."""
    return [int(found.group(1)) for key in state if (found := re.search(pattern, key))]
