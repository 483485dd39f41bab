"""What a protocol refuses."""

from __future__ import annotations

from typing import Any

import pytest

from evaluation.config import Protocol


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"window": 0}, "window = 0: must be at least 1, or None"),
        ({"stride": 8}, "stride = 8 has no effect without a window"),
        ({"window": 8, "stride": 9}, "stride = 9 skips pixels between windows of 8"),
        ({"templates": ("a photo",)}, "every template needs the name's place"),
        ({"templates": ()}, "every template needs the name's place"),
        ({"background": "words"}, "background = 'words' needs background_words"),
        ({"patch_share": -0.1}, "patch_share = -0.1: a share, from 0 to 1"),
        ({"threshold": 1.5}, "threshold = 1.5: a probability, from 0 to 1"),
    ],
)
def test_a_wrong_field_is_named_with_the_way_out(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Protocol(**fields)
