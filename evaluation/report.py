"""A run's report: one HTML page that needs nothing but itself, made from the JSON files that the stages left."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from evaluation.atomic import write_bytes
from evaluation.charts import column_chart, heat_map, line_chart
from evaluation.curves import PHASES, curves, ends, read_metrics
from evaluation.findings import RANKS, read_findings
from evaluation.page import picture_uri, read_json, render

PAGE = "report/index.html"
DATA_FOLDERS = ("captions", "entities", "postings", "images", "pairs")
FUNNEL = (
    ("captions", "rows read", "captions read"),
    ("captions", "rows kept", "captions kept"),
    ("entities", "captions kept", "name an entity"),
    ("images", "images", "images asked for"),
    ("images", "stored", "images stored"),
    ("pairs", "pairs", "pairs"),
)
"""folder, figure of its data card, words for people: what is left after each stage, in the order of the data"""
RANGE = re.compile(r"\d+–\d+$")
"""A label like "5–9": a row of a distribution, whose order means something"""
CONTACT_SHEET = "sheet.jpg"
"""picture of examples that a stage may leave beside its data card"""


def write_report(run_dir: Path, title: str, caveat: str = "") -> Path:
    """Write run_dir/report/index.html from what the stages have left, and return its path.

    A stage that has left nothing is named in its section. The page asks for nothing outside itself.
    """
    segmentation = read_findings(run_dir / "evaluation")
    cards = _cards(run_dir / "data")
    phases = [_phase(run_dir / name, name) for name in PHASES]
    page = render(
        "report.html.j2",
        title=title,
        caveat=caveat,
        segmentation=segmentation,
        funnel=_funnel(cards),
        cards=cards,
        phases=phases,
        effort=_effort(phases, cards),
        configs=_configs(run_dir, segmentation),
        ranks=RANKS,
    )
    write_bytes(run_dir / PAGE, page)
    return run_dir / PAGE


def _cards(data_dir: Path) -> dict[str, dict[str, Any]]:
    cards = {}
    for name in DATA_FOLDERS:
        card = read_json(data_dir / name / "datacard.json")
        if card is not None:
            tables = [_table(title, rows) for title, rows in card["tables"].items() if rows]
            has_sheet = (data_dir / name / CONTACT_SHEET).exists()
            sheet = picture_uri(data_dir / name, CONTACT_SHEET) if has_sheet else None
            cards[name] = {**card, "tables": tables, "sheet": sheet}
    return cards


def _table(title: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    # Names and counts are drawn as bars of the first count, ranges and counts as columns in their order, names against
    # the same names as a heat map; what is none of these, and quantities of several kinds ("what"), stays a table.
    columns = list(rows[0])
    labels = [column for column in columns if isinstance(rows[0][column], str)]
    counts = [column for column in columns if isinstance(rows[0][column], int | float)]
    table = {"title": title.capitalize(), "columns": columns, "rows": rows, "bars": None, "svg": None}
    if len(labels) != 1 or not counts or labels == ["what"]:
        return table
    names = [row[labels[0]] for row in rows]
    if counts == names:
        shown = "Of the captions that name the row's entity, the share that names the column's."
        return {**table, "svg": heat_map(names, [[row[name] for name in names] for row in rows]), "caption": shown}
    if RANGE.match(names[0]):
        chart = column_chart(names, [row[counts[0]] for row in rows], labels[0])
        return {**table, "title": f"{title}, {counts[0]} by {labels[0]}".capitalize(), "svg": chart, "caption": ""}
    top = max(row[counts[0]] for row in rows) or 1
    bars = [
        {"label": row[labels[0]], "value": row[counts[0]], "width": 100 * row[counts[0]] / top}
        for row in sorted(rows, key=lambda row: -row[counts[0]])
    ]
    return {**table, "title": f"{title}, by {counts[0]}".capitalize(), "bars": bars}


def _funnel(cards: dict[str, dict[str, Any]]) -> list[tuple[str, int]]:
    return [
        (words, cards[folder]["figures"][name])
        for folder, name, words in FUNNEL
        if folder in cards and name in cards[folder]["figures"]
    ]


def _phase(folder: Path, name: str) -> dict[str, Any]:
    rows = read_metrics(folder)
    run = read_json(folder / "run.json")
    facts = {}
    if run is not None:
        config = run["train"]
        facts = {
            "steps": run["steps"],
            "images per step": config["batch_size"],
            "training time, s": run["train_time_s"],
            "parameters": run["parameters"],
            "images that could not be decoded": run["skipped"],
            "seed": run["seed"],
            "commit": (run["commit"] or "unknown")[:12],
            **run["versions"],
        }
    return {
        "name": name,
        "number": name.removeprefix("phase"),
        "facts": facts,
        "curves": [{"title": line.name, "ends": ends(line), "svg": line_chart(line)} for line in curves(rows).values()],
        "steps": len(rows),
    }


def _effort(phases: list[dict[str, Any]], cards: dict[str, dict[str, Any]]) -> str:
    # What the figure has cost, for the head of the page.
    minutes = sum(phase["facts"].get("training time, s", 0) for phase in phases) / 60
    stored = cards.get("images", {}).get("figures", {}).get("stored")
    return f"trained for {minutes:.1f} minutes on {stored:,} captioned images, no mask" if minutes and stored else ""


def _configs(run_dir: Path, segmentation: dict[str, Any] | None) -> dict[str, str]:
    configs: dict[str, Any] = {"evaluation: protocol": segmentation and segmentation["protocol"]}
    configs["run: config.json"] = read_json(run_dir / "config.json")
    for name in DATA_FOLDERS:
        configs[f"data/{name}"] = (read_json(run_dir / "data" / name / "manifest.json") or {}).get("config")
    for name in PHASES:
        run = read_json(run_dir / name / "run.json") or {}
        configs[name] = {key: run[key] for key in ("model", "train", "inputs") if key in run}
    return {name: json.dumps(config, indent=2, ensure_ascii=False) for name, config in configs.items() if config}
