from __future__ import annotations

import logging

import pytest

from curation.progress import Progress


def test_each_part_is_one_line_with_counts_and_reasons(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    with Progress("parse", total=4000) as progress:
        progress.part("part-00000.parquet", 1000, 1000, 250, {"no form": 750, "no noun": 0})
    (line,) = caplog.messages
    assert line.startswith("parse part-00000.parquet  kept 250/1,000 (25.0 %)  no form 750  ")
    assert "no noun" not in line
    assert line.endswith("eta 00:00")
