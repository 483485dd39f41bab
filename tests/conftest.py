"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import hypothesis
import pytest

import flows  # sets the environment that the libraries read at import

ROOT = Path(flows.__file__).resolve().parents[1]
SHARED = Path(os.environ.get("OVSEG_SHARED", ROOT.parent / "shared"))
ABSENT = f"{SHARED}/real: not found; name the folder of real captions, photographs and masks in $OVSEG_SHARED"

os.environ.setdefault("HF_HUB_OFFLINE", "1")
hypothesis.settings.register_profile("shared machine", deadline=None)
hypothesis.settings.load_profile("shared machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests that need real data where it is absent, except in CI, where they fail."""
    if not (SHARED / "real").is_dir() and not os.environ.get("CI"):
        for item in items:
            if item.get_closest_marker("real_data"):
                item.add_marker(pytest.mark.skip(reason=ABSENT))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly what was left out."""
    absent = [report for report in terminalreporter.stats.get("skipped", []) if ABSENT in str(report.longrepr)]
    if absent:
        terminalreporter.section("NOT ALL TESTS WERE RUN", red=True)
        terminalreporter.line(f"{len(absent)} tests on real data were left out. {ABSENT}.", red=True)


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real captions, photographs, masks and gold labels that lies beside the project."""
    if not (SHARED / "real").is_dir():
        pytest.fail(ABSENT)
    return SHARED
