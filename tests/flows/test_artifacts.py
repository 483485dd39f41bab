"""Cards, tables and pictures, as Prefect's server gives them back."""

from __future__ import annotations

import base64
import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import get_client

from curation.datacard import write_datacard
from evaluation.curves import curves, read_metrics
from flows.artifacts import losses_picture, show_classes, show_datacard, show_losses, show_pairs, show_report

RESULT = {
    "benchmark": {"title": "drawn scenes"},
    "classes": ["background", "cat"],
    "images": [{}, {}],
    "results": [
        {"name": "phase1", "miou": 0.25, "iou": {"background": 0.5, "cat": 0.0}},
        {"name": "phase2", "miou": 0.5, "iou": {"background": 0.5, "cat": None}},
    ],
}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "data/images").mkdir(parents=True)
    write_datacard(tmp_path / "data/images", "Images", {"stored": 12})
    (tmp_path / "data/pairs").mkdir()
    (tmp_path / "data/pairs/sheet.jpg").write_bytes(b"a picture")
    (tmp_path / "phase1").mkdir()
    lines = [{"step": step, "total": 8.0 / step, "contrastive": 4.0 / step} for step in (1, 2, 4)]
    (tmp_path / "phase1/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def artifact(key: str) -> dict[str, Any]:
    with get_client(sync_client=True) as client:
        found: dict[str, Any] = client.request("GET", f"/artifacts/{key}/latest").json()
        return found


@pytest.mark.usefixtures("prefect_api")
def test_a_run_shows_what_its_stages_have_left(run_dir: Path) -> None:
    @flow
    def stages() -> None:
        show_datacard(run_dir / "data/images")
        show_pairs(run_dir / "data")
        show_losses(run_dir / "phase1")
        show_classes(RESULT)
        show_report(run_dir / "report/index.html", "Demo")

    stages()
    assert artifact("datacard-images")["data"] == (run_dir / "data/images/datacard.md").read_text()
    kind, _, content = artifact("pairs")["data"].partition(",")
    assert kind == "data:image/jpeg;base64"
    assert base64.b64decode(content) == b"a picture"
    assert artifact("losses-phase1")["description"] == "total loss 8 to 2, contrastive loss 4 to 1"
    assert json.loads(artifact("classes")["data"]) == [
        {"class": "mIoU", "phase1": "25.0", "phase2": "50.0"},
        {"class": "background", "phase1": "50.0", "phase2": "50.0"},
        {"class": "cat", "phase1": "0.0", "phase2": ""},
    ]
    assert f"{run_dir}/report/index.html" in artifact("report")["data"]


def test_the_picture_of_losses_is_a_file_of_its_own_that_names_each_line(run_dir: Path) -> None:
    svg = ElementTree.fromstring(losses_picture(curves(read_metrics(run_dir / "phase1"))))
    space = "{http://www.w3.org/2000/svg}"
    assert svg.tag == f"{space}svg"
    assert {"total loss", "contrastive loss"} <= {text.text for text in svg.iter(f"{space}text")}
    assert len(list(svg.iter(f"{space}polyline"))) == 2


def test_outside_a_run_nothing_is_read_or_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    show_datacard(tmp_path)
    show_losses(tmp_path)
    show_classes({})
    # In a run the same calls ask for what is not there.
    monkeypatch.setattr("flows.artifacts.FlowRunContext.get", lambda: object())
    with pytest.raises(FileNotFoundError, match="datacard"):
        show_datacard(tmp_path)
    with pytest.raises(KeyError, match="classes"):
        show_classes({})
