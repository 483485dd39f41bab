from __future__ import annotations

import os
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model.checkpoint import Stub, read_checkpoint


class Hostile:
    """Writes a file when it is unpickled by an unrestricted loader."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


class Settings(dict[str, Any]):
    """Like the config objects that training frameworks pickle beside the weights."""

    def __init__(self) -> None:
        super().__init__(lr=0.1)
        self.frozen = True


@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_come_through_and_nothing_runs(tmp_path: Path, zipped: bool) -> None:
    marker = tmp_path / "marker"
    weight = torch.nn.Parameter(torch.randn(3, 2))
    saved = {
        "model": OrderedDict(weight=weight, half=torch.ones(2).half(), count=torch.tensor(3)),
        "config": Settings(),
        "best": np.float64(3.5),
        "evil": Hostile(marker),
        "epoch": 7,
    }
    torch.save(saved, tmp_path / "checkpoint.pth", _use_new_zipfile_serialization=zipped)
    found = read_checkpoint(tmp_path / "checkpoint.pth")
    assert torch.equal(found["model"]["weight"], weight)
    assert found["model"]["half"].dtype == torch.float16
    assert found["model"]["count"].item() == 3
    assert found["epoch"] == 7
    assert isinstance(found["config"], Stub)
    assert isinstance(found["evil"], Stub)
    assert not marker.exists()
    torch.load(tmp_path / "checkpoint.pth", weights_only=False)
    assert marker.exists()  # the pickle was hostile indeed


@pytest.mark.parametrize("content", ["no checkpoint", ""])
def test_what_is_no_checkpoint_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "text.pth").write_text(content)
    with pytest.raises(ValueError, match="expected a checkpoint written by torch"):
        read_checkpoint(tmp_path / "text.pth")
