"""What the report says of an evaluation: its tables, charts and pictures, from evaluation.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from evaluation import published
from evaluation.charts import Line, confusion_map, lines_chart
from evaluation.page import percent, picture_uri, read_json
from evaluation.pictures import colour, hexadecimal

RANKS = {"best": "Best images", "typical": "Typical images", "worst": "Worst images"}
CLOSE = 0.005
"""two mIoU nearer than this are called equal"""
CLASSES_DRAWN = 30
"""classes of the confusion picture; the rarer ones are drawn as one"""
MISTAKES_LISTED = 8
REST = "all others"
MEASURES = {
    "miou": "mIoU",
    "frequency_weighted_iou": "frequency-weighted IoU",
    "pixel_accuracy": "pixel accuracy",
    "seen_miou": "mIoU, seen",
    "unseen_miou": "mIoU, unseen",
    "harmonic_mean": "harmonic mean",
    "best_overlap": "best overlap",
}
"""name of a figure -> title of its column"""


def read_findings(folder: Path) -> dict[str, Any] | None:
    """Return what a template shows of evaluation/; None when there is no evaluation.json.

    Evaluations of earlier versions have fewer figures: what they lack is None or empty.
    """
    result = read_json(folder / "evaluation.json")
    if result is None:
        return None
    rows = {row["name"]: row for row in result["results"]}
    models = [row for row in result["results"] if row["kind"] == "model"]
    subject = rows[result["subject"]]
    count_CC = np.array(subject["confusion"])
    return {
        "unseen": [],
        "backgrounds": [],
        **result,
        "subject_row": subject,
        "untrained": rows.get("untrained"),
        "verdicts": _verdicts({name: row["miou"] for name, row in rows.items()}, result["subject"]),
        "models": models,
        "measures": _measures(result["results"]),
        "per_class": _per_class(result["classes"], models, subject),
        "confusion": confusion_map(*_drawn_classes(result["classes"], count_CC)),
        "mistakes": _mistakes(result["classes"], count_CC),
        "curve": _threshold_curve(result),
        "published": _published(result["benchmark"]["name"]),
        "sheet": {
            rank: [
                sheet_card(picture, folder, result["subject"])
                for picture in result["pictures"]
                if picture["rank"] == rank
            ]
            for rank in RANKS
        },
    }


def sheet_card(picture: dict[str, Any], folder: Path, subject: str) -> dict[str, Any]:
    """Return an image with its views in order: image, truth, labels and groups of the subject, then the others'."""
    found = picture.get("models", {})
    name = f"{subject}: " if len(found) > 1 else ""
    kinds = [("image", "image"), ("truth", "truth"), (f"{name}labels", "prediction"), (f"{name}groups", "groups")]
    views = [view(words, kind, picture, folder) for words, kind in kinds]
    for model, drawn in found.items():
        if model != subject:
            views += [
                view(f"{model}: labels", "prediction", drawn, folder),
                view(f"{model}: groups", "groups", drawn, folder),
            ]
    return {**picture, "views": views}


def view(words: str, kind: str, drawn: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Return one of the pictures that were drawn of an image, with its caption and legend."""
    uri = picture_uri(folder, drawn["files"][kind])
    return {"words": words, "kind": kind, "uri": uri, "legend": drawn["legends"][kind]}


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


def _measures(results: list[dict[str, Any]]) -> dict[str, Any]:
    # The figures that some row has, as columns, and a row of them for each method.
    rows = []
    for row in results:
        found = {**row, **(row.get("unseen") or {}), "best_overlap": (row.get("groups") or {}).get("mean_over_regions")}
        rows.append({"title": row["title"], **{name: found.get(name) for name in MEASURES}})
    columns = {name: title for name, title in MEASURES.items() if any(row[name] is not None for row in rows)}
    return {"columns": columns, "rows": rows}


def _drawn_classes(classes: Sequence[str], count_CC: NDArray[np.int64]) -> tuple[list[str], list[list[int]]]:
    # The classes with the most true pixels, in their order, and the rest as one.
    if len(classes) <= CLASSES_DRAWN:
        return list(classes), count_CC.tolist()
    kept = np.sort(np.argsort(-count_CC.sum(1), kind="stable")[: CLASSES_DRAWN - 1])
    place_C = np.full(len(classes), len(kept))
    place_C[kept] = np.arange(len(kept))
    drawn_DD = np.zeros((len(kept) + 1, len(kept) + 1), np.int64)
    np.add.at(drawn_DD, (place_C[:, None], place_C[None, :]), count_CC)
    return [*(classes[at] for at in kept), REST], drawn_DD.tolist()


def _mistakes(classes: Sequence[str], count_CC: NDArray[np.int64]) -> list[dict[str, Any]]:
    # The largest shares of a true class's pixels that are called by another name.
    share_CC = count_CC / np.maximum(1, count_CC.sum(1, keepdims=True)) * ~np.eye(len(classes), dtype=bool)
    most = np.argsort(-share_CC, axis=None, kind="stable")[:MISTAKES_LISTED]
    return [
        {"true": classes[a], "called": classes[b], "share": float(share_CC[a, b])}
        for a, b in zip(*np.unravel_index(most, share_CC.shape), strict=True)
        if share_CC[a, b]
    ]


def _threshold_curve(result: dict[str, Any]) -> dict[str, Any] | None:
    points = [(threshold, miou) for threshold, miou in result.get("threshold_curve", []) if miou is not None]
    if not points:
        return None
    line = Line("mIoU, %", [threshold for threshold, _ in points], [100 * miou for _, miou in points])
    used = result["protocol"]["threshold"] if result["protocol"]["background"] == "threshold" else None
    best = max(points, key=lambda point: point[1])
    return {"svg": lines_chart([line], [hexadecimal(colour(0))], "threshold", used), "best": best, "used": used}


def _published(benchmark: str) -> dict[str, Any]:
    return {
        "figures": published.figures(benchmark),
        "unseen": published.unseen_figures(benchmark),
        "objectives": published.objective_figures(benchmark),
        "properties": published.properties(),
    }


def _per_class(classes: list[str], models: list[dict[str, Any]], subject: dict[str, Any]) -> list[dict[str, Any]]:
    pixels = [sum(row) for row in subject["confusion"]]
    rows = []
    for name, count in zip(classes, pixels, strict=True):
        iou = {model["name"]: model["iou"][name] for model in models}
        before, after = iou.get("untrained"), subject["iou"][name]
        gain = None if before is None or after is None else after - before
        rows.append({"name": name, "share": count / max(1, sum(pixels)), "iou": iou, "gain": gain})
    return rows
