from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import pytest

from flows.settings import with_settings


@dataclass(frozen=True)
class Inner:
    steps: int = 3
    sizes: tuple[int, ...] = (1,)
    kind: Literal["a", "b"] = "a"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps = {self.steps}: use 1 or more")


@dataclass(frozen=True)
class Outer:
    name: str = "x"
    inner: Inner = field(default_factory=Inner)
    limit: float | None = None


def test_settings_reach_nested_fields_and_keep_the_rest() -> None:
    changed = with_settings(Outer(), ["inner.steps=5", "inner.sizes=[2, 3]", "name=plain text", "limit=0.5"])
    assert changed == Outer("plain text", Inner(5, (2, 3)), 0.5)


def test_no_settings_leave_the_config_as_it_is() -> None:
    assert with_settings(Outer(), []) == Outer()


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("inner.stops=5", r"--set inner\.stops=5: 'inner' has steps, sizes, kind"),
        ("other=1", r"'the config' has name, inner, limit"),
        ("name.x=1", r"'name' has no settings below it"),
        ("name", r"expected NAME=VALUE"),
        ("inner.steps=many", r"inner\.steps = 'many': Input should be a valid integer"),
        ("inner.kind=c", r"inner\.kind = 'c': Input should be 'a' or 'b'"),
        ("inner.steps=0", r"steps = 0: use 1 or more"),
    ],
)
def test_wrong_settings_say_what_is_possible(setting: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        with_settings(Outer(), [setting])


def test_forms_say_what_each_setting_means() -> None:
    from prefect.utilities.callables import parameter_schema

    from flows.pipeline import pipeline

    configs = parameter_schema(pipeline.fn).definitions
    assert configs["PipelineConfig"]["properties"]["title"]["description"] == "headline of the report"
    assert "seconds for one try" in configs["DownloadConfig"]["properties"]["timeout_s"]["description"]
