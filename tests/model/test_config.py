from __future__ import annotations

import json
from dataclasses import asdict, replace

import pytest

from model.config import ImageConfig, LossConfig, ModelConfig, TextConfig, from_dict


def test_a_config_survives_json() -> None:
    config = ModelConfig(
        image=ImageConfig(stem="conv", patch_size=4, depths=(0, 2, 1), num_group_tokens=(16, 4), num_groups=(8, 4)),
        text=TextConfig(pretrained="folder"),
        loss=LossConfig(nouns=1.0, mask=0.0, share_positives=True),
        projector="linear",
    )
    assert from_dict(ModelConfig, json.loads(json.dumps(asdict(config)))) == config


def test_an_unknown_key_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ValueError, match="ImageConfig has no windth; known are image_size, stem"):
        from_dict(ModelConfig, {"image": {"windth": 3}})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"num_heads": 7}, "num_heads = 7: must divide width = 768"),
        ({"image_size": 225}, "image_size = 225: must be a multiple of patch_size = 16"),
        ({"stem": "conv", "patch_size": 7, "image_size": 224}, "patch_size = 7: stem 'conv' halves the image"),
        ({"depths": (6,)}, "depths = \\(6,\\): must have one entry more"),
        ({"depths": (6, -1)}, "must not be negative"),
        ({"num_groups": (0,)}, "num_groups = \\(0,\\): must be positive"),
        ({"assign_eps": 0.0}, "assign_eps = 0.0: must be positive"),
        ({"drop_path": 1.0}, "drop_path = 1.0: must be in"),
        ({"stem_norm": "batch"}, "stem_norm = 'batch': stem 'patch' knows 'none' and 'layer'"),
        ({"stem": "conv", "pretrained": "vit_small_patch16_224.dino"}, "need stem 'patch', found 'conv'"),
    ],
)
def test_an_impossible_image_config_is_refused(change: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ImageConfig(), **change)  # type: ignore[arg-type]


def test_impossible_text_and_loss_configs_are_refused() -> None:
    with pytest.raises(ValueError, match="num_heads = 5: must divide width = 768"):
        TextConfig(num_heads=5)
    with pytest.raises(ValueError, match="max_length = 2"):
        TextConfig(max_length=2)
    with pytest.raises(ValueError, match="entity = -1: a weight must not be negative"):
        LossConfig(entity=-1)
    with pytest.raises(ValueError, match=r"temperature = 0\.001: its inverse"):
        LossConfig(temperature=0.001)
    with pytest.raises(ValueError, match="embedding_width = 0"):
        ModelConfig(embedding_width=0)
    with pytest.raises(ValueError, match=r"loss.mask = 1.6: mask consistency is defined for one grouping, found"):
        ModelConfig(image=ImageConfig(depths=(6, 3, 3), num_group_tokens=(64, 8), num_groups=(64, 8)))
