from dataclasses import replace
from typing import Any

import pytest

from training.config import AugmentConfig, LaunchConfig, OptimConfig, PromptConfig, TrainConfig


@pytest.mark.parametrize(
    ("config", "changes", "message"),
    [
        (TrainConfig(), {"steps": 0}, "steps = 0: needs 1 or more"),
        (TrainConfig(), {"momentum": 1.5}, "momentum = 1.5: needs a share between 0 and 1"),
        (TrainConfig(), {"loader_workers": -1}, "loader_workers = -1"),
        (TrainConfig(batch_size=9), {"launch": LaunchConfig(workers=2)}, "does not split over launch.workers = 2"),
        (TrainConfig(), {"augment": AugmentConfig(kind="deit")}, "use loader_workers >= 1"),
        (AugmentConfig(), {"crop_scale": (0.9, 0.4)}, "needs 0 < low <= high <= 1"),
        (PromptConfig(), {"template": "a photo"}, "needs exactly one {}"),
        (OptimConfig(), {"min_lr": 1.0}, "needs 0 <= min_lr <= lr"),
        (OptimConfig(), {"clip_norm": 0.0}, "needs more than 0"),
        (LaunchConfig(), {"threads": 0}, "launch.threads = 0: needs 1 or more"),
    ],
)
def test_a_bad_value_is_refused_with_its_field_and_the_way_out(
    config: Any, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is compared below, it holds braces
        replace(config, **changes)
    assert message in str(error.value)
