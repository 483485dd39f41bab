"""GroupViT as transformers holds it: from its names and config to ours.

GroupViT (arXiv 2202.11094) is this model with two groupings, a norm on its patches and a CLIP-style text tower, without
masked entity completion and mask consistency.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from model.checkpoint import load_weights, rename
from model.config import ImageConfig, LossConfig, ModelConfig, TextConfig
from model.official import GROUPING_RENAMES
from model.ovsegmentor import OVSegmentor
from model.text import CLIP, load_tokenizer

# In order; each is a pattern of transformers' names and what stands for it in ours.
RENAMES = (
    (r"^vision_model\.embeddings\.patch_embeddings\.projection\.", "image_encoder.stem.project."),
    (r"^vision_model\.embeddings\.layernorm\.", "image_encoder.stem.norm."),
    (r"^vision_model\.embeddings\.position_embeddings$", "image_encoder.positions.table"),
    (r"^vision_model\.encoder\.", "image_encoder."),
    (r"^vision_model\.layernorm\.", "image_encoder.norm."),
    (r"^visual_projection\.", "image_projector."),
    (r"^text_projection\.", "text_projector."),
    (r"^text_model\.", "text_encoder.transformer."),
    (r"^(image_encoder\.stages\.\d+)\.group_token$", r"\1.token"),
    (r"^(image_encoder\.stages\.\d+)\.group_projector\.", r"\1.hand_over."),
    (r"^(image_encoder\.stages\.\d+)\.layers\.", r"\1.blocks."),
    (r"^(image_encoder\.stages\.\d+)\.downsample\.", r"\1.grouping."),
    *GROUPING_RENAMES,
    (r"^(image_encoder\..*\.)self_attn\.", r"\1attn."),
    (r"^(image_encoder\..*\.)out_proj\.", r"\1proj."),
    (r"^(image_encoder\..*\.)layer_norm(\d)\.", r"\1norm\2."),
    (r"^(image_encoder\..*\.)fc1\.", r"\g<1>0."),
    (r"^(image_encoder\..*\.)fc2\.", r"\g<1>2."),
)
UNUSED = (
    r"\.pre_assign_attn\.attn\.k_proj\.bias$",  # moves all logits of a query alike
    r"\.position_ids$",
)
# What our image encoder has no setting for: its value in every GroupViT that was published.
FIXED = {"hidden_act": "gelu", "layer_norm_eps": 1e-5, "dropout": 0.0, "attention_dropout": 0.0, "num_channels": 3}


def load_groupvit(source: Any, tokenizer: Any = None) -> OVSegmentor:
    """Return GroupViT with transformers' weights, in eval mode.

    Args:
        source: a transformers GroupViTModel, or the hub name or folder of one (`nvidia/groupvit-gcc-yfcc`).
        tokenizer: what `tokenize` uses; None is the one beside the weights, if `source` names a place.

    Raises:
        ValueError: a config that has no counterpart here, or weights that do not fit it.
    """
    from transformers import GroupViTModel

    name = "GroupViTModel"
    if isinstance(source, str | Path):
        name = str(source)
        source = GroupViTModel.from_pretrained(name)
        tokenizer = tokenizer or load_tokenizer(name)
    config = groupvit_config(source.config)
    model = OVSegmentor(config, tokenizer, clip_text_config(source.config.text_config))
    weights, unused = translate(source.state_dict())
    model.load_report = load_weights(model, weights, f"load_groupvit({name})", unused=unused)
    return model.eval()


def groupvit_config(config: Any) -> ModelConfig:
    """Return our config of a transformers GroupViTConfig."""
    vision, text = config.vision_config, config.text_config
    found = {name: getattr(vision, name) for name in FIXED}
    found["intermediate_size"] = vision.intermediate_size / vision.hidden_size
    found["assign_mlp_ratio"] = tuple(vision.assign_mlp_ratio)
    expected = {**FIXED, "intermediate_size": 4.0, "assign_mlp_ratio": (0.5, 4)}
    if odd := {name: value for name, value in found.items() if value != expected[name]}:
        raise ValueError(f"load_groupvit: vision_config has {odd}; this model knows {[expected[name] for name in odd]}")
    return ModelConfig(
        image=ImageConfig(
            image_size=vision.image_size,
            patch_size=vision.patch_size,
            stem_norm="layer",
            width=vision.hidden_size,
            num_heads=vision.num_attention_heads,
            depths=tuple(vision.depths),
            num_group_tokens=tuple(vision.num_group_tokens[:-1]),
            num_groups=tuple(vision.num_output_groups[:-1]),
            assign_eps=vision.assign_eps,
            drop_path=0.0,
        ),
        text=TextConfig(
            model_type=CLIP,
            width=text.hidden_size,
            num_layers=text.num_hidden_layers,
            num_heads=text.num_attention_heads,
            mlp_ratio=text.intermediate_size / text.hidden_size,
            dropout=text.attention_dropout,
            max_length=text.max_position_embeddings,
        ),
        loss=LossConfig(entity=0.0, mask=0.0),
        embedding_width=config.projection_dim,
        projector_width=config.projection_intermediate_dim,
    )


def clip_text_config(text: Any) -> Any:
    """Return transformers' config of the CLIP text transformer that equals GroupViT's."""
    from transformers import CLIPTextConfig

    names = (
        "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "hidden_act",
        "max_position_embeddings", "layer_norm_eps", "attention_dropout", "pad_token_id", "bos_token_id",
        "eos_token_id",
    )  # fmt: skip
    return CLIPTextConfig(**{name: getattr(text, name) for name in names})


def translate(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights under our names, and the names of those that take part in no result."""
    translated, unused = rename(state, RENAMES, UNUSED)
    for name in [name for name in translated if re.search(r"\.blocks\.\d+\.attn\.q_proj\.", name)]:
        parts = [translated.pop(name.replace("q_proj", f"{letter}_proj")) for letter in "qkv"]
        translated[name.replace("q_proj", "qkv")] = torch.cat(parts)
    return translated, unused
