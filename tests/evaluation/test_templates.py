"""Sets of sentences around class names."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.config import Protocol
from evaluation.templates import SETS, sentences


def test_there_are_eighty_templates_with_one_gap_each() -> None:
    assert {name: len(set(templates)) for name, templates in SETS.items()} == {
        "simple": 1,
        "subset_7": 7,
        "full_80": 80,
    }
    assert all(template.count("{}") == 1 for templates in SETS.values() for template in templates)


@pytest.mark.real_data
def test_the_sets_are_those_of_the_release(shared: Path) -> None:
    reference = json.loads((shared / "reference/templates.json").read_text())
    assert {name: list(templates) for name, templates in SETS.items()} == reference


def test_a_protocol_takes_a_set_by_name_or_any_sentences() -> None:
    assert sentences(Protocol(templates="subset_7").templates)[0] == "itap of a {}."
    assert sentences(Protocol(templates=("a {}.",)).templates) == ("a {}.",)
    with pytest.raises(ValueError, match="templates = 'all': known sets are simple, subset_7, full_80; or give"):
        Protocol(templates="all")  # type: ignore[arg-type]
