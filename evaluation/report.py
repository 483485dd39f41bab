"""A run's report: one HTML page that needs nothing but itself, made from the JSON files that the stages left."""

from __future__ import annotations

import base64
import json
import math
import re
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined

from evaluation.atomic import write_bytes
from evaluation.charts import Line, column_chart, heat_map, line_chart

PAGE = "report/index.html"
TEMPLATE = Path(__file__).with_name("report.html.j2")
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
PHASES = ("phase1", "phase2")
CURVES = {
    "total": "total loss",
    "contrastive": "contrastive loss",
    "entity": "entity completion",
    "nouns": "noun prompts",
    "words": "masked words",
    "mask": "mask consistency",
    "lr": "learning rate",
    "samples_per_s": "images per second",
}
RANKS = {"best": "Best images", "typical": "Typical images", "worst": "Worst images"}
KINDS = {"image": "image", "truth": "truth", "prediction": "prediction", "groups": "groups"}
CLOSE = 0.005
"""two mIoU nearer than this are called equal"""


def write_report(run_dir: Path, title: str, caveat: str = "") -> Path:
    """Write run_dir/report/index.html from what the stages have left, and return its path.

    A stage that has left nothing is named in its section. The page asks for nothing outside itself.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"percent": percent, "signed": signed, "figure": figure}
    segmentation = _segmentation(run_dir / "evaluation")
    cards = _cards(run_dir / "data")
    phases = [_phase(run_dir / name, name) for name in PHASES]
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=title,
        caveat=caveat,
        segmentation=segmentation,
        funnel=_funnel(cards),
        cards=cards,
        phases=phases,
        effort=_effort(phases, cards),
        configs=_configs(run_dir, segmentation),
        ranks=RANKS,
        kinds=KINDS,
    )
    write_bytes(run_dir / PAGE, page.encode())
    return run_dir / PAGE


def percent(share: float | None) -> str:
    """Return a share as a percentage with one digit, a dash for None."""
    return "–" if share is None else f"{100 * share:.1f}"


def signed(difference: float | None) -> str:
    """Return a difference of shares in percentage points with its sign, a dash for None."""
    if difference is None:
        return "–"
    text = percent(abs(difference))
    return text if text == "0.0" else f"{'+' if difference > 0 else '−'}{text}"


def figure(value: Any, name: str = "") -> str:
    """Return a figure for people; its name tells shares and sizes in bytes."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name.endswith(("share", "rate")) and 0 <= value <= 1:
        return f"{percent(value)} %"
    if "bytes" in name:
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def _segmentation(folder: Path) -> dict[str, Any] | None:
    result = _read(folder / "evaluation.json")
    if result is None:
        return None
    rows = {row["name"]: row for row in result["results"]}
    models = [row for row in result["results"] if row["kind"] == "model"]
    subject = rows[result["subject"]]
    return {
        **result,
        "subject_row": subject,
        "untrained": rows.get("untrained"),
        "verdicts": _verdicts({name: row["miou"] for name, row in rows.items()}, result["subject"]),
        "models": models,
        "per_class": _per_class(result["classes"], models, subject),
        "sheet": {
            rank: [_card(picture, folder) for picture in result["pictures"] if picture["rank"] == rank]
            for rank in RANKS
        },
    }


def _verdicts(miou: dict[str, float | None], subject: str) -> list[str]:
    # Said in words, for or against the model, from the figures alone.
    comparisons = (
        ("Naming every patch on its own, without groups", "patches", f"with the groups of {subject}", subject),
        ("Colour clusters, named by the model", "colour_clusters", f"the groups of {subject}", subject),
        ("With true names, colour clusters", "colour_clusters_oracle", "learned groups", "groups_oracle"),
    )
    verdicts = []
    for their_words, their_name, our_words, our_name in comparisons:
        theirs, ours = miou.get(their_name), miou.get(our_name)
        if theirs is not None and ours is not None:
            gap = ours - theirs
            ahead = f"Groups are {'ahead' if gap > 0 else 'behind'} by {percent(abs(gap))}"
            outcome = "No difference" if abs(gap) < CLOSE else ahead
            verdicts.append(f"{their_words}: {percent(theirs)}; {our_words}: {percent(ours)}. {outcome}.")
    return verdicts


def _per_class(classes: list[str], models: list[dict[str, Any]], subject: dict[str, Any]) -> list[dict[str, Any]]:
    pixels = [sum(row) for row in subject["confusion"]]
    rows = []
    for name, count in zip(classes, pixels, strict=True):
        iou = {model["name"]: model["iou"][name] for model in models}
        before, after = iou.get("untrained"), subject["iou"][name]
        gain = None if before is None or after is None else after - before
        rows.append({"name": name, "share": count / max(1, sum(pixels)), "iou": iou, "gain": gain})
    return rows


def _card(picture: dict[str, Any], folder: Path) -> dict[str, Any]:
    uris = {}
    for kind, file in picture["files"].items():
        uris[kind] = _uri(folder / file)
    return {**picture, "uris": uris}


def _uri(picture: Path) -> str:
    kind = picture.suffix[1:].replace("jpg", "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def _cards(data_dir: Path) -> dict[str, dict[str, Any]]:
    cards = {}
    for name in DATA_FOLDERS:
        card = _read(data_dir / name / "datacard.json")
        if card is not None:
            tables = [_table(title, rows) for title, rows in card["tables"].items() if rows]
            sheet = data_dir / name / CONTACT_SHEET
            cards[name] = {**card, "tables": tables, "sheet": _uri(sheet) if sheet.exists() else None}
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
    path = folder / "metrics.jsonl"
    lines = [json.loads(text) for text in path.read_text().splitlines() if text.endswith("}")] if path.exists() else []
    run = _read(folder / "run.json")
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
        "curves": _curves(lines),
        "steps": len(lines),
    }


def _effort(phases: list[dict[str, Any]], cards: dict[str, dict[str, Any]]) -> str:
    # What the figure has cost, for the head of the page.
    minutes = sum(phase["facts"].get("training time, s", 0) for phase in phases) / 60
    stored = cards.get("images", {}).get("figures", {}).get("stored")
    return f"trained for {minutes:.1f} minutes on {stored:,} captioned images, no mask" if minutes and stored else ""


def _curves(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    curves = []
    for name, title in CURVES.items():
        points = [(line["step"], line[name]) for line in lines if _is_finite(line.get(name))]
        if points:
            line = Line(title, *map(list, zip(*points, strict=True)))
            share = max(1, len(points) // 20)
            first, last = (sum(part) / share for part in (line.values[:share], line.values[-share:]))
            curves.append({"title": title, "first": first, "last": last, "svg": line_chart(line)})
    return curves


def _configs(run_dir: Path, segmentation: dict[str, Any] | None) -> dict[str, str]:
    configs: dict[str, Any] = {"evaluation: protocol": segmentation and segmentation["protocol"]}
    configs["run: config.json"] = _read(run_dir / "config.json")
    for name in DATA_FOLDERS:
        configs[f"data/{name}"] = (_read(run_dir / "data" / name / "manifest.json") or {}).get("config")
    for name in PHASES:
        run = _read(run_dir / name / "run.json") or {}
        configs[name] = {key: run[key] for key in ("model", "train", "inputs") if key in run}
    return {name: json.dumps(config, indent=2, ensure_ascii=False) for name, config in configs.items() if config}


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
