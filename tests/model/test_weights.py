from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from model import Batch, CardFacts, ModelConfig, OVSegmentor, add_metrics

Make = Callable[..., OVSegmentor]


@pytest.mark.parametrize("which", ["paper_config", "small_config"])
def test_a_model_comes_back_as_it_was(
    which: str, request: pytest.FixtureRequest, make_model: Make, make_batch: Callable[..., Batch], tmp_path: Path
) -> None:
    config: ModelConfig = request.getfixturevalue(which)
    model = make_model(config)
    model.losses(make_batch(model, cross=False))  # moves running statistics
    model.start_momentum()
    model.save_pretrained(tmp_path / "model", CardFacts(data="Five photographs.", metrics={"mIoU, VOC": 0.25}))
    back = OVSegmentor.from_pretrained(tmp_path / "model")
    assert back.config == config
    assert not back.training
    assert back.momentum_encoder is None
    assert {path.name for path in (tmp_path / "model").iterdir()} == {
        "config.json", "model.safetensors", "README.md", "tokenizer.json", "tokenizer_config.json"
    }  # fmt: skip
    card = (tmp_path / "model" / "README.md").read_text()
    assert "Five photographs." in card
    assert "| mIoU, VOC | 0.25 |" in card
    assert f"{sum(p.numel() for p in back.parameters()):,} parameters" in card
    assert back.load_report is not None
    assert set(back.load_report.loaded) == set(back.state_dict())
    image, captions = make_batch(model).image, ["a cat on the [MASK]", "a sofa"]
    assert torch.equal(back.encode_image(image).embedding_BE, model.eval().encode_image(image).embedding_BE)
    assert torch.equal(back.tokenize(captions).input_ids_BL, model.tokenize(captions).input_ids_BL)
    found, expected = (m.encode_text(m.tokenize(captions)).embedding_BE for m in (back, model))
    assert torch.equal(found, expected)


def test_saving_twice_replaces_the_first(small_config: ModelConfig, make_model: Make, tmp_path: Path) -> None:
    for seed in (0, 1):
        make_model(small_config, seed).save_pretrained(tmp_path)
    back = OVSegmentor.from_pretrained(tmp_path)
    assert torch.equal(back.logit_scale, make_model(small_config, 1).logit_scale)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"expected config.json and model.safetensors .* found no model"):
        OVSegmentor.from_pretrained(tmp_path)


def test_another_models_config_is_refused(small_config: ModelConfig, make_model: Make, tmp_path: Path) -> None:
    make_model(small_config).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(ValueError, match="expected an OVSegmentor of format 1, found another model's config"):
        OVSegmentor.from_pretrained(tmp_path)


def test_weights_that_do_not_fit_the_config_are_named(
    small_config: ModelConfig, make_model: Make, tmp_path: Path
) -> None:
    make_model(small_config).save_pretrained(tmp_path)
    stored = json.loads((tmp_path / "config.json").read_text())
    stored["model"]["embedding_width"] = 5
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=r"model.safetensors: .* of other shapes \['image_projector.weight \(12, 24\)"):
        OVSegmentor.from_pretrained(tmp_path)


def test_figures_found_later_are_told_by_the_card(small_config: ModelConfig, make_model: Make, tmp_path: Path) -> None:
    make_model(small_config).save_pretrained(tmp_path, CardFacts(metrics={"total loss, last step": 2.5}))
    for figure in (0.25, 0.5):
        add_metrics(tmp_path / "README.md", {"mIoU, VOC": figure})
    table = [line for line in (tmp_path / "README.md").read_text().splitlines() if line.startswith("| ")]
    assert table == ["| metric | value |", "| --- | --- |", "| mIoU, VOC | 0.5 |", "| total loss, last step | 2.5 |"]
    (tmp_path / "README.md").write_text("another text")
    with pytest.raises(ValueError, match="expected a card with a table of metrics"):
        add_metrics(tmp_path / "README.md", {"mIoU, VOC": 0.5})
