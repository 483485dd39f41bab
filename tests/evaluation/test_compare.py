"""Runs on one page: what differs is told, what cannot be compared is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from evaluation.compare import differences, flat, read_settings, write_comparison

if TYPE_CHECKING:
    from playwright.sync_api import Browser

CLASSES = ["background", "cat"]
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010802000000907753de"
    "0000000c4944415408d763f8cfc000000301010018dd8db00000000049454e44ae426082"
)


def write_run(folder: Path, miou: float, steps: int, images: tuple[str, ...] = ("a", "b")) -> Path:
    """Write a run that reached a figure; its class `cat` has the same IoU."""
    pictures = []
    (folder / "evaluation/pictures").mkdir(parents=True)
    for name in images:
        files = {kind: f"pictures/{name}-{kind}.png" for kind in ("image", "truth", "prediction", "groups")}
        for file in files.values():
            (folder / "evaluation" / file).write_bytes(PIXEL)
        pictures.append(
            {"name": name, "width": 64, "height": 64, "files": files, "legends": {kind: [] for kind in files}}
        )
    rows = [
        {"name": name, "title": name, "kind": kind, "miou": value, "iou": {"background": 0.9, "cat": value}}
        for name, kind, value in (("phase1", "model", miou), ("ideal", "oracle", 0.75))
    ]
    result: dict[str, Any] = {
        **{"benchmark": {"name": "scenes", "title": "drawn scenes", "images": 3}, "classes": CLASSES},
        **{"protocol": {"threshold": 0.5}, "subject": "phase1", "results": rows, "pictures": pictures},
    }
    (folder / "evaluation/evaluation.json").write_text(json.dumps(result))
    (folder / "config.json").write_text(json.dumps({"seed": 3, "phase1": {"optim": {"lr": 1e-3}, "steps": steps}}))
    (folder / "phase1").mkdir()
    lines = [{"step": step, "total": miou * step} for step in (1, 2)]
    (folder / "phase1/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> list[Path]:
    return [write_run(tmp_path / "short", 0.25, 100), write_run(tmp_path / "long", 0.375, 200, ("b", "c"))]


def text_of(page: Path) -> str:
    return " ".join(page.read_text().split())


def test_settings_figures_curves_and_shared_images_are_compared(runs: list[Path], tmp_path: Path) -> None:
    text = text_of(write_comparison(runs, tmp_path / "page/comparison.html"))
    assert "<title>short against long</title>" in text
    assert '<td>phase1.steps</td><td class="words">100</td><td class="words">200</td>' in text
    assert "phase1.optim.lr" not in text
    assert (
        "total loss: from 0.25 at step 1 to 0.5 at step 2; total loss: from 0.375 at step 1 to 0.75 at step 2" in text
    )
    assert '<td>phase1</td><td class="number" data-value="0.25">25.0</td>' in text
    assert 'data-value="0.375">37.5<small>+12.5</small></td>' in text
    assert '<th scope="row">background</th>' in text
    assert 'data-value="0.9">90.0<small>0.0</small></td>' in text
    assert "long: labels of b" in text
    assert "of a" not in text
    assert "of c" not in text


def test_figures_of_other_images_are_not_compared(runs: list[Path], tmp_path: Path) -> None:
    path = runs[1] / "evaluation/evaluation.json"
    result = json.loads(path.read_text())
    path.write_text(json.dumps({**result, "benchmark": {"name": "voc", "title": "PASCAL VOC 2012", "images": 3}}))
    text = text_of(write_comparison(runs, tmp_path / "comparison.html"))
    assert "Not compared: the runs were measured on other images or other classes." in text
    assert "+12.5" not in text


def test_a_run_that_has_only_begun_is_shown_with_what_it_has(runs: list[Path], tmp_path: Path) -> None:
    (tmp_path / "begun").mkdir()
    text = text_of(write_comparison([*runs, tmp_path / "begun"], tmp_path / "comparison.html"))
    assert "begun: not evaluated yet" in text
    assert '<td class="words">100</td><td class="words">200</td><td class="words">–</td>' in text
    assert "<small>+12.5</small>" in text


def test_runs_of_one_name_are_told_apart_by_their_folders(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / place / "demo", 0.25, 100) for place in ("x", "y")]
    assert f"<title>{runs[0]} against {runs[1]}</title>" in text_of(write_comparison(runs, tmp_path / "c.html"))


def test_what_cannot_be_compared_is_refused(runs: list[Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="needs two runs at least"):
        write_comparison([runs[0], runs[0]], tmp_path / "c.html")
    with pytest.raises(FileNotFoundError, match="nowhere: no such folder"):
        write_comparison([runs[0], tmp_path / "nowhere"], tmp_path / "c.html")


def test_settings_come_from_the_phases_where_there_is_no_config(tmp_path: Path) -> None:
    (tmp_path / "phase1").mkdir()
    run = {"model": {"width": 96}, "train": {"steps": 5}, "inputs": {"data": "digest"}}
    (tmp_path / "phase1/run.json").write_text(json.dumps(run))
    assert read_settings(tmp_path) == {"phase1.model.width": 96, "phase1.train.steps": 5}


def test_nested_settings_get_dotted_names() -> None:
    assert flat({"a": {"b": {"c": 1}, "d": {}}, "e": [1]}) == {"a.b.c": 1, "a.d": {}, "e": [1]}


def test_only_what_differs_is_listed_and_what_is_missing_is_a_dash() -> None:
    assert differences({"x": {"a": 1, "b": None}, "y": {"a": 1, "b": 2, "c": "z"}}) == [
        {"name": "b", "values": {"x": "null", "y": "2"}},
        {"name": "c", "values": {"x": "–", "y": "z"}},
    ]


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_the_page_fits_its_width_and_asks_for_nothing(
    runs: list[Path], tmp_path: Path, browser: Browser, width: int
) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    path = write_comparison(runs, tmp_path / "comparison.html")
    page.goto(path.as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("document.images.length") == 6
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    page.close()
