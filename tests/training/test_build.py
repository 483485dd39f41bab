from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from curation.images import Samples
from model import LossConfig, ModelConfig
from training.build import continue_model, entities_named, start_model
from training.config import TrainConfig
from training.phase import Phase

Make = Callable[..., TrainConfig]


def test_entities_are_read_from_all_captions(data_dir: Path) -> None:
    assert entities_named(Samples(data_dir / "images")) == ["boat", "car", "cat", "dog"]


def test_the_same_seed_gives_the_same_weights_and_words(
    data_dir: Path, tmp_path: Path, tiny_model: ModelConfig, tiny_config: Make
) -> None:
    models = []
    for name, seed in (("a", 3), ("b", 3), ("c", 4)):
        phase = Phase(data_dir, tmp_path / name, tiny_model, tiny_config(seed=seed))
        models.append(start_model(phase, phase.samples()))
    first, again, other = (torch.cat([p.flatten() for p in model.parameters()]) for model in models)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert models[0].tokenizer.get_vocab() == models[1].tokenizer.get_vocab()
    assert models[0].tokenizer.tokenize("A CAT on the sand") == ["a", "cat", "on", "the", "sand"]


def test_phase_2_begins_with_phase_1s_weights_text_frozen_and_momentum_copied(
    data_dir: Path, tmp_path: Path, tiny_model: ModelConfig, tiny_config: Make
) -> None:
    phase = Phase(data_dir, tmp_path, tiny_model, tiny_config())
    before = start_model(phase, phase.samples())
    before.save_pretrained(tmp_path / "model")
    after = continue_model(tmp_path / "model", replace(tiny_model, loss=replace(tiny_model.loss, mask=0.5)))
    assert after.config.loss.mask == 0.5
    assert after.momentum_encoder is not None
    state = after.state_dict()
    for name, value in before.state_dict().items():
        assert torch.equal(state[name], value), name
        if name.startswith("image_encoder."):
            assert torch.equal(state[name.replace("image_encoder", "momentum_encoder", 1)], value)
    frozen = {name for name, parameter in after.named_parameters() if not parameter.requires_grad}
    assert {name.partition(".")[0] for name in frozen} == {"text_encoder", "momentum_encoder"}


def test_another_model_is_refused(data_dir: Path, tmp_path: Path, tiny_model: ModelConfig, tiny_config: Make) -> None:
    phase = Phase(data_dir, tmp_path, tiny_model, tiny_config())
    start_model(phase, phase.samples()).save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="only losses may differ"):
        continue_model(tmp_path / "model", replace(tiny_model, embedding_width=8))
    with pytest.raises(ValueError, match=r"keep loss\.entity on or off in both phases"):
        continue_model(tmp_path / "model", replace(tiny_model, loss=LossConfig(entity=0.0)))
