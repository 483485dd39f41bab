from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from model import ModelConfig
from training.config import TrainConfig
from training.phase import Phase

Make = Callable[..., TrainConfig]


def test_phases_ask_for_what_they_start_from(data_dir: Path, tiny_model: ModelConfig, tiny_config: Make) -> None:
    with pytest.raises(ValueError, match="phase 2 starts from phase 1's model: give its folder as init_from"):
        Phase(data_dir, data_dir, tiny_model, tiny_config(phase=2))
    with pytest.raises(ValueError, match="phase 1 starts from nothing"):
        Phase(data_dir, data_dir, tiny_model, tiny_config(), data_dir)


def test_a_phase_2_that_trains_no_masks_warns(
    data_dir: Path, tiny_model: ModelConfig, tiny_config: Make, caplog: pytest.LogCaptureFixture
) -> None:
    model = replace(tiny_model, loss=replace(tiny_model.loss, mask=0.0))
    Phase(data_dir, data_dir, model, tiny_config(phase=2), data_dir)
    assert caplog.messages == ["phase 2 with loss.mask = 0 trains no cross-image mask consistency"]


def test_settings_name_the_inputs_by_digest(data_dir: Path, tiny_model: ModelConfig, tiny_config: Make) -> None:
    settings = Phase(data_dir, data_dir / "run", tiny_model, tiny_config(seed=5)).settings()
    assert settings["inputs"] == {"samples": "test-48"}
    assert settings["train"]["seed"] == 5
    assert settings["model"]["image"]["width"] == 16
