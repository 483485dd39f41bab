"""Model configs by name: the rows of the paper's tables. A variant is a `replace` of one of these.

Source: paper table 1 and section 4.1; GroupViT section 4.1.
"""

from __future__ import annotations

from dataclasses import replace

from model.config import ImageConfig, LossConfig, ModelConfig, TextConfig
from model.text import CLIP

DINO = {"vit_s": "vit_small_patch16_224.dino", "vit_b": "vit_base_patch16_224.dino"}
"""timm's names of the weights that the paper's image encoders start from"""


def ovsegmentor_vit_b() -> ModelConfig:
    """ViT-B/16 from DINO with BERT-base: 64 group tokens, 8 groups after 6 of 12 blocks."""
    return ModelConfig(image=ImageConfig(pretrained=DINO["vit_b"]), text=TextConfig(pretrained="bert-base-uncased"))


def ovsegmentor_vit_s() -> ModelConfig:
    """ViT-S/16 from DINO with RoBERTa-base, as released."""
    return ModelConfig(
        image=ImageConfig(width=384, num_heads=6, pretrained=DINO["vit_s"]),
        text=TextConfig(model_type="roberta", pretrained="roberta-base"),
    )


def groupvit_vit_s() -> ModelConfig:
    """GroupViT: ViT-S/16 from scratch in three encoder stages, 64 groups and then 8, with a CLIP-style text tower.

    Trained with captions and noun prompts (multi-label contrastive loss), without the two proxy tasks of the paper.
    """
    return ModelConfig(
        image=ImageConfig(
            stem_norm="layer",
            width=384,
            num_heads=6,
            depths=(6, 3, 3),
            num_group_tokens=(64, 8),
            num_groups=(64, 8),
        ),
        text=TextConfig(model_type=CLIP, width=256, num_layers=12, num_heads=4, dropout=0.0),
        loss=LossConfig(entity=0.0, mask=0.0, nouns=1.0),
    )


def groupvit_vit_b() -> ModelConfig:
    """GroupViT with ViT-B/16's width: the rerun of OVSegmentor's authors."""
    small = groupvit_vit_s()
    return replace(small, image=replace(small.image, width=768, num_heads=12))
