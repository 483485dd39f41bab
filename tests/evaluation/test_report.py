"""The report: one page from JSON files, complete, honest about what is missing, asking for nothing outside."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from evaluation.config import Protocol
from evaluation.evaluate import evaluate
from evaluation.report import write_report

if TYPE_CHECKING:
    from playwright.sync_api import Browser

Write = Callable[..., Path]
TITLE = "Debug <run> & more"
CAVEAT = "This mIoU means nothing."
SECTIONS = ("segmentation", "published", "classes", "sheet", "curation", "training", "settings")


class Page(HTMLParser):
    """The parts of a page that tests ask for."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.text += " "
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("src", "href", "srcset", "action", "data", "poster", "xlink:href"):
                self.references.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def run_dir(tmp_path: Path, scene: np.ndarray, write_benchmark: Write, oracle_model: Any, confused_model: Any) -> Path:
    """A run's folder with what every stage leaves, figures chosen by hand."""
    run_dir = tmp_path / "run"
    benchmark_dir = write_benchmark(tmp_path / "benchmark", [scene, scene.T.copy(), scene[:, ::-1].copy()])
    models = {"untrained": confused_model, "phase1": oracle_model, "phase2": oracle_model}
    protocol = Protocol(background="words", background_words=("grass",))
    evaluate(models, "scenes", benchmark_dir, run_dir / "evaluation", protocol)
    cards = {
        "captions": (
            "Captions",
            {"rows read": 5000, "rows kept": 4321},
            {"empty caption": 600, "no address": 79},
            {"caption lengths": [{"words": "0–4", "captions": 21}, {"words": "5–9", "captions": 4300}]},
        ),
        "entities": (
            "Captions that name an entity",
            {"captions kept": 3210, "kept share": 0.7429},
            {},
            {
                "kept under each rule": [{"what": "captions", "spacy": 3210, "exact": 2345}]
                + [{"what": "cat", "spacy": 7, "exact": 6}] * 19
            },
        ),
        "postings": (
            "Entities",
            {},
            {},
            {
                "entities": [{"entity": "cat", "captions": 7}, {"entity": "bus", "captions": 9}],
                "co-occurrence": [{"entity": "bus", "bus": 9, "cat": 3}, {"entity": "cat", "bus": 3, "cat": 7}],
            },
        ),
        "images": ("Images", {"images": 3000, "stored": 2900, "bytes of shards": 12_345_678}, {"http_404": 100}, {}),
        "pairs": ("Pairs", {"pairs": 29_000}, {}, {"partners": [{"a": 1, "b": 2}]}),
    }
    for name, (title, figures, drops, tables) in cards.items():
        _write(
            run_dir / "data" / name / "datacard.json",
            {"title": title, "figures": figures, "drops": drops, "tables": tables},
        )
        _write(run_dir / "data" / name / "manifest.json", {"config": {"stage": name, "agent": "</pre><script>"}})
    for number in (1, 2):
        lines = [
            {"step": step, "total": 4 / step, "contrastive": 3 / step, "mask": None if number == 1 else 0.5, "lr": 1e-3}
            for step in range(1, 101)
        ]
        folder = run_dir / f"phase{number}"
        _write(
            folder / "run.json",
            {
                **{"model": {"width": 96}, "train": {"batch_size": 64}, "inputs": {}, "versions": {"torch": "9.9"}},
                **{"seed": 3, "commit": None, "parameters": 1234, "steps": 100, "skipped": 2, "train_time_s": 90.0},
            },
        )
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    _write(run_dir / "config.json", {"title": TITLE})
    return run_dir


def _write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_the_page_has_every_section_and_asks_for_nothing_outside(run_dir: Path) -> None:
    path = write_report(run_dir, TITLE, CAVEAT)
    assert path == run_dir / "report/index.html"
    text = path.read_text()
    page = Page(text)
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    assert "No figures" not in page.text
    assert "has not" not in page.text
    assert len(page.references) >= len(SECTIONS) + 12
    assert all(reference.startswith(("#", "data:image/")) for reference in page.references)
    assert not {"link", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not re.search(r"url\(|@import|fetch\(|XMLHttpRequest|import\(", text)
    assert "default-src 'none'" in text


def test_the_page_shows_the_figures_of_every_stage(run_dir: Path) -> None:
    text = " ".join(Page(write_report(run_dir, TITLE, CAVEAT).read_text()).text.split())
    assert f"{TITLE} 100.0 % mIoU on 3 images of drawn scenes" in text
    assert "phase2, 4 classes; untrained 0.0 %" in text
    assert "trained for 3.0 minutes on 2,900 captioned images, no mask" in text
    assert f"Read this figure with care. {CAVEAT}" in text
    assert "5,000 captions read 4,321 captions kept 3,210 name an entity" in text
    assert "empty caption 600 88.4 %" in text
    assert "kept share 74.3 %" in text
    assert "bytes of shards 12.3 MB" in text
    assert "Entities, by captions bus 9 cat 7" in text
    assert "Caption lengths, captions by words" in text
    assert "5–9: 4,300" in text
    assert "Kept under each rule what spacy exact captions 3,210 2,345" in text
    assert "5 more what spacy exact cat 7 6" in text
    assert "cat with bus: 3 (42.9 %)" in text
    assert "seed 3" in text
    assert "colour clusters, true names sees the truth" in text
    assert "With true names, colour clusters: 100.0; learned groups: 100.0. No difference." in text
    # The first and last twentieth of 100 steps of 4 / step: means over steps 1-5 and 96-100.
    assert "total loss 1.83 → 0.0408" in text
    assert '"agent": "</pre><script>"' in text


def test_the_same_files_give_the_same_page(run_dir: Path) -> None:
    first = write_report(run_dir, TITLE, CAVEAT).read_bytes()
    assert write_report(run_dir, TITLE, CAVEAT).read_bytes() == first


def test_an_empty_run_names_what_is_missing(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, "Nothing yet").read_text())
    assert [name for name in page.ids if name in SECTIONS] == list(SECTIONS)
    for missing in (
        "mIoU: not evaluated yet",
        "no evaluation/evaluation.json",
        "no data/*/datacard.json",
        "no phase1/metrics.jsonl",
        "no phase2/metrics.jsonl",
        "no stage has left its config yet",
    ):
        assert missing in page.text
    assert "Read this figure with care" not in page.text


def test_an_unfinished_phase_shows_its_curves_so_far(run_dir: Path) -> None:
    (run_dir / "phase2/run.json").unlink()
    with (run_dir / "phase2/metrics.jsonl").open("a") as file:
        file.write('{"step": 101, "tot')
    text = " ".join(Page(write_report(run_dir, TITLE).read_text()).text.split())
    assert "The phase has 100 steps and no phase2/run.json: it has not finished." in text


def test_losses_that_are_not_finite_do_not_break_the_page(tmp_path: Path) -> None:
    lines = [{"step": 1, "total": 2.0}, {"step": 2, "total": float("nan")}, {"step": 3, "total": 1.0}]
    (tmp_path / "phase1").mkdir()
    (tmp_path / "phase1/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert "2 → 1" in Page(write_report(tmp_path, TITLE).read_text()).text


def test_a_contact_sheet_beside_a_data_card_is_shown(run_dir: Path) -> None:
    page = write_report(run_dir, "Run").read_text()
    assert "data:image/jpeg;base64" not in page
    (run_dir / "data" / "pairs" / "sheet.jpg").write_bytes(b"picture")
    page = write_report(run_dir, "Run").read_text()
    assert 'src="data:image/jpeg;base64,cGljdHVyZQ=="' in page


@pytest.mark.browser
@pytest.mark.parametrize("width", [1280, 390])
def test_in_a_browser_the_page_fits_its_width_and_asks_for_nothing(run_dir: Path, browser: Browser, width: int) -> None:
    page = browser.new_page(viewport={"width": width, "height": 844})
    asked, complaints = [], []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.goto(write_report(run_dir, TITLE, CAVEAT).as_uri())
    page.evaluate("document.querySelectorAll('details').forEach(each => each.open = true)")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(each => each.complete && each.naturalWidth > 0)")
    assert [url for url in asked if not url.startswith("data:")] == [(run_dir / "report/index.html").as_uri()]
    assert complaints == []
    page.close()


@pytest.mark.browser
def test_a_heading_of_the_classes_sorts_them(run_dir: Path, browser: Browser) -> None:
    page = browser.new_page()
    page.goto(write_report(run_dir, TITLE).as_uri())

    def column(position: int) -> list[str]:
        return page.locator(f"table.sortable tbody tr > :nth-child({position})").all_inner_texts()

    page.locator("th button", has_text="class").click()
    assert column(1) == ["background", "bus", "cat", "dog"]
    page.locator("th button", has_text="pixels").click()
    shares = [float(text) for text in column(2)]
    assert shares == sorted(shares, reverse=True)
    assert column(1)[0] == "background"
    page.locator("th button", has_text="pixels").click()
    assert [float(text) for text in column(2)] == shares[::-1]
    page.close()
