"""Several runs on one page: how their settings differ, and what came of it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from evaluation.atomic import write_bytes
from evaluation.charts import lines_chart
from evaluation.curves import CURVES, PHASES, curves, ends, read_metrics
from evaluation.findings import view
from evaluation.page import read_json, render

COLOURS = ("#1d5fb8", "#c2410c", "#15803d", "#7e22ce", "#0e7490", "#a16207", "#be185d", "#44403c")
"""of the runs: dark enough for text on white"""
ABSENT = "–"
PICTURES_SHOWN = 12


def write_comparison(run_dirs: Sequence[Path], path: Path) -> Path:
    """Write a page that compares runs with the first of them, and return its path.

    Raises: FileNotFoundError for a folder that is not there, ValueError for less than two runs.
    """
    if absent := [str(run_dir) for run_dir in run_dirs if not run_dir.is_dir()]:
        raise FileNotFoundError(f"{', '.join(absent)}: no such folder; expected folders of runs")
    if len({run_dir.resolve() for run_dir in run_dirs}) < 2:
        raise ValueError(f"{', '.join(map(str, run_dirs))}: a comparison needs two runs at least")
    runs = _named(run_dirs)
    colours = dict(zip(runs, cycle(COLOURS), strict=False))
    results = {name: read_json(run_dir / "evaluation" / "evaluation.json") for name, run_dir in runs.items()}
    measured = {name: result for name, result in results.items() if result is not None}
    has_same_task = len({json.dumps([each["benchmark"], each["classes"]]) for each in measured.values()}) == 1
    page = render(
        "compare.html.j2",
        title=" against ".join(runs),
        colours=colours,
        folders={name: str(run_dir) for name, run_dir in runs.items()},
        results=results,
        has_same_task=has_same_task,
        settings=differences({name: read_settings(run_dir) for name, run_dir in runs.items()}),
        charts={phase: _charts(runs, colours, phase) for phase in PHASES},
        figures=_figures(measured) if has_same_task else [],
        per_class=_per_class(measured) if has_same_task else [],
        pictures=_pictures(measured, runs) if has_same_task and len(measured) == len(runs) else [],
    )
    write_bytes(path, page)
    return path


def read_settings(run_dir: Path) -> dict[str, Any]:
    """Return a run's settings by their dotted names: its config.json, or what its phases were begun with.

    The protocol is the one that its figures were measured with.
    """
    config = read_json(run_dir / "config.json")
    if config is None:
        phases = {name: read_json(run_dir / name / "run.json") for name in PHASES}
        config = {name: {key: run[key] for key in ("model", "train")} for name, run in phases.items() if run}
    result = read_json(run_dir / "evaluation" / "evaluation.json")
    return flat({**config, **({"protocol": result["protocol"]} if result else {})})


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return nested settings by dotted names, in their order."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict) and value:
            found |= {f"{name}.{below}": each for below, each in flat(value).items()}
        else:
            found[name] = value
    return found


def differences(settings: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the settings that are not the same in all runs: name, and the value in each run as text."""
    names = list(dict.fromkeys(name for each in settings.values() for name in each))
    rows = []
    for name in names:
        said = {run: _said(each[name]) if name in each else ABSENT for run, each in settings.items()}
        if len(set(said.values())) > 1:
            rows.append({"name": name, "values": said})
    return rows


def _said(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _named(run_dirs: Sequence[Path]) -> dict[str, Path]:
    # By the folders' names where these tell them apart.
    names = [run_dir.resolve().name for run_dir in run_dirs]
    if len(set(names)) < len(names):
        names = [str(run_dir) for run_dir in run_dirs]
    return dict(zip(names, run_dirs, strict=True))


def _charts(runs: Mapping[str, Path], colours: Mapping[str, str], phase: str) -> list[dict[str, Any]]:
    lines = {run: curves(read_metrics(run_dir / phase)) for run, run_dir in runs.items()}
    charts = []
    for name, title in CURVES.items():
        found = {run: each[name] for run, each in lines.items() if name in each}
        if found:
            svg = lines_chart(list(found.values()), [colours[run] for run in found], "step")
            charts.append({"title": title, "svg": svg, "ends": {run: ends(line) for run, line in found.items()}})
    return charts


def _figures(measured: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    # A row per method that some run has measured; the subjects, which may have other names, come first.
    rows = {run: {row["name"]: row for row in result["results"]} for run, result in measured.items()}
    subjects = {run: rows[run][result["subject"]] for run, result in measured.items()}
    title = ", ".join(dict.fromkeys(row["title"] for row in subjects.values()))
    figures = [_against_first(title, {run: row["miou"] for run, row in subjects.items()}) | {"kind": "subject"}]
    for name in dict.fromkeys(name for each in rows.values() for name in each):
        found = {run: each[name] for run, each in rows.items() if name in each and each[name] is not subjects[run]}
        if found:
            row = next(iter(found.values()))
            miou = {run: found[run]["miou"] if run in found else None for run in rows}
            figures.append(_against_first(row["title"], miou) | {"kind": row["kind"]})
    return figures


def _per_class(measured: Mapping[str, dict[str, Any]]) -> list[dict[str, Any]]:
    iou = {
        run: next(row["iou"] for row in result["results"] if row["name"] == result["subject"])
        for run, result in measured.items()
    }
    return [_against_first(name, {run: each[name] for run, each in iou.items()}) for name in next(iter(iou.values()))]


def _against_first(title: str, values: Mapping[str, float | None]) -> dict[str, Any]:
    first = next(iter(values.values()))
    gains = {run: None if value is None or first is None else value - first for run, value in values.items()}
    return {"title": title, "values": values, "gains": gains}


def _pictures(measured: Mapping[str, dict[str, Any]], runs: Mapping[str, Path]) -> list[dict[str, Any]]:
    # The images that every run shows, in the first one's order: the subjects' labels and groups beside each other.
    drawn = {run: {picture["name"]: picture for picture in result["pictures"]} for run, result in measured.items()}
    shared = [name for name in next(iter(drawn.values())) if all(name in each for each in drawn.values())]
    folders = {run: run_dir / "evaluation" for run, run_dir in runs.items()}
    first = next(iter(drawn))
    pictures = []
    for name in shared[:PICTURES_SHOWN]:
        shown = [view(kind, kind, drawn[first][name], folders[first]) for kind in ("image", "truth")]
        for run, each in drawn.items():
            shown += [
                view(f"{run}: {words}", kind, each[name], folders[run])
                for words, kind in (("labels", "prediction"), ("groups", "groups"))
            ]
        pictures.append(
            {"name": name, "width": drawn[first][name]["width"], "height": drawn[first][name]["height"], "views": shown}
        )
    return pictures
