"""What the report says of an evaluation, from figures chosen by hand and from those of earlier versions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.findings import CLASSES_DRAWN, REST, read_findings, sheet_card
from evaluation.page import render

CLASSES = ["background", "cat", "dog"]
CONFUSION = [[90, 10, 0], [5, 10, 5], [0, 20, 20]]


def row(name: str, kind: str = "model", **figures: Any) -> dict[str, Any]:
    iou = {"background": 0.9, "cat": 0.2, "dog": 0.4}
    shared = {"title": name, "description": "", "kind": kind, "miou": 0.5, "iou": iou, "confusion": CONFUSION}
    return {"name": name, **shared, **figures}


@pytest.fixture
def result() -> dict[str, Any]:
    """An evaluation as the first version of this project wrote it: no curve, no rules, no groups."""
    return {
        "benchmark": {"name": "voc", "title": "PASCAL VOC 2012", "images": 2},
        "classes": CLASSES,
        "protocol": {"background": "threshold", "threshold": 0.5, "window": None},
        "subject": "ours",
        "results": [row("untrained", miou=0.1, iou={"background": 0.9, "cat": None, "dog": 0.1}), row("ours")],
        "images": [],
        "pictures": [],
    }


def write(folder: Path, result: dict[str, Any]) -> dict[str, Any]:
    folder.mkdir(exist_ok=True)
    (folder / "evaluation.json").write_text(json.dumps(result))
    found = read_findings(folder)
    assert found is not None
    return found


def text_of(findings: dict[str, Any]) -> str:
    return " ".join(render("findings.html.j2", segmentation=findings, ranks={}).decode().split())


def test_an_evaluation_that_is_not_there_is_none(tmp_path: Path) -> None:
    assert read_findings(tmp_path) is None


def test_an_evaluation_of_an_earlier_version_is_shown_without_what_it_lacks(
    result: dict[str, Any], tmp_path: Path
) -> None:
    findings = write(tmp_path, result)
    assert (findings["curve"], findings["backgrounds"], findings["unseen"]) == (None, [], [])
    assert list(findings["measures"]["columns"]) == ["miou"]
    assert "What counts as background" not in text_of(findings)


def test_gains_and_mistakes_follow_from_the_figures(result: dict[str, Any], tmp_path: Path) -> None:
    findings = write(tmp_path, result)
    assert [(each["name"], each["gain"]) for each in findings["per_class"]] == [
        *(("background", 0), ("cat", None), ("dog", pytest.approx(0.3)))
    ]
    assert [each["share"] for each in findings["per_class"]] == [100 / 160, 20 / 160, 40 / 160]
    assert findings["mistakes"] == [
        {"true": "dog", "called": "cat", "share": 0.5},
        {"true": "cat", "called": "background", "share": 0.25},
        {"true": "cat", "called": "dog", "share": 0.25},
        {"true": "background", "called": "cat", "share": 0.1},
    ]
    assert "dog called cat: 50.0 %" in findings["confusion"]


def test_of_many_classes_the_rare_ones_are_drawn_as_one(result: dict[str, Any], tmp_path: Path) -> None:
    # Class k has k + 1 pixels, all rightly named but for one of class 0, called 1.
    count = CLASSES_DRAWN + 10
    classes = [f"c{number}" for number in range(count)]
    confusion = [[(a + 1) * (a == b) for b in range(count)] for a in range(count)]
    confusion[0] = [0, 1, *[0] * (count - 2)]
    subject = row("ours", iou=dict.fromkeys(classes, 0.5), confusion=confusion)
    svg = write(tmp_path, {**result, "classes": classes, "results": [subject]})["confusion"]
    assert svg.count('class="cell"') == CLASSES_DRAWN
    assert svg.count('class="cell wrong"') == CLASSES_DRAWN * (CLASSES_DRAWN - 1)
    assert f"{REST} called {REST}: 100.0 %" in svg
    assert "c10 " not in svg
    assert "c11 called c11: 100.0 %" in svg


def test_rules_and_curve_for_background_are_shown_with_the_threshold_in_use(
    result: dict[str, Any], tmp_path: Path
) -> None:
    rules = [{"rule": "threshold", "setting": "0.5", "miou": 0.5}, {"rule": "words", "setting": "sky", "miou": 0.625}]
    curve = [[0.0, 0.25], [0.5, 0.5], [0.75, 0.5625], [1.0, None]]
    findings = write(tmp_path, {**result, "backgrounds": rules, "threshold_curve": curve})
    text = text_of(findings)
    assert '<td>words<small>sky</small></td><td class="number">62.5</td>' in text
    assert "best 56.2 at 0.75; dashed: 0.5, the protocol's" in text
    assert "from 25 at threshold 0 to 56.2 at threshold 0.75" in text


def test_published_figures_stand_beside_ours_with_what_is_comparable(result: dict[str, Any], tmp_path: Path) -> None:
    text = text_of(write(tmp_path, result))
    assert '<strong>ours, this run</strong></td><td class="number">50.0</td>' in text
    assert '<td>OVSegmentor</td><td class="number">53.8</td><td>ViT-B</td>' in text
    assert "no: fine-tuned with masks of the benchmark&#39;s training set" in text
    assert "What methods can do and need" in text
    result["benchmark"] = {"name": "scenes", "title": "drawn scenes", "images": 2}
    assert "Nothing is published about drawn scenes" in text_of(write(tmp_path, result))


def test_groups_and_unseen_classes_get_their_figures(result: dict[str, Any], tmp_path: Path) -> None:
    unseen = {"seen_miou": 0.2, "unseen_miou": 0.4, "harmonic_mean": 0.8 / 3}
    ours = row("ours", unseen=unseen, groups={"mean_over_regions": 0.75}, pixel_accuracy=0.8)
    text = text_of(write(tmp_path, {**result, "unseen": ["dog"], "results": [ours, row("all", "baseline")]}))
    head = "".join(
        f'<th scope="col" class="number">{title}, %</th>'
        for title in ("mIoU", "pixel accuracy", "mIoU, seen", "mIoU, unseen", "harmonic mean", "best overlap")
    )
    assert head in text
    assert "".join(f'<td class="number">{value}</td>' for value in (50.0, 80.0, 20.0, 40.0, 26.7, 75.0)) in text
    assert "Unseen: dog; seen: all other classes but background." in text
    assert '<td class="number">40.0</td><td></td><td>no</td>' in text


def test_models_stand_side_by_side_on_the_same_image(tmp_path: Path) -> None:
    def drawn(stem: str, *kinds: str) -> dict[str, Any]:
        files = {kind: f"{stem}-{kind}.png" for kind in kinds}
        for file in files.values():
            (tmp_path / file).write_bytes(b"picture")
        return {"files": files, "legends": {kind: [] for kind in kinds}}

    last = drawn("b", "prediction", "groups")
    shared = drawn("a", "image", "truth")
    both = {key: shared[key] | last[key] for key in shared}
    models = {"before": drawn("c", "prediction", "groups"), "after": last}
    views = sheet_card({**both, "models": models}, tmp_path, "after")["views"]
    assert [view["words"] for view in views] == [
        *("image", "truth", "after: labels", "after: groups", "before: labels", "before: groups")
    ]
    assert [view["words"] for view in sheet_card(both, tmp_path, "after")["views"]] == [
        *("image", "truth", "labels", "groups")
    ]
