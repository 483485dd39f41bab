"""Fixtures shared by all rooms."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """Return the folder of real captions, photographs, masks and gold labels that lies beside the project."""
    path = Path(os.environ.get("OVSEG_SHARED", ROOT.parent / "shared"))
    if not (path / "real").is_dir():
        pytest.fail(
            f"{path}/real: not found; tests marked real_data need the shared data: name its folder in $OVSEG_SHARED, "
            f"or leave these tests out with -m 'not real_data'"
        )
    return path
