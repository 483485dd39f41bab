"""A saved model to change."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture
def model_dir(saved_model: Path, tmp_path: Path) -> Path:
    """Return a copy of the tiny model."""
    return shutil.copytree(saved_model, tmp_path / "model")
