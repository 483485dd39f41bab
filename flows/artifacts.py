"""What a person wants to see on a run's page in Prefect: cards, tables, pictures and a link. Truth stays on disk.

Outside a flow run nothing is shown: the stages are plain functions too.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_table_artifact,
)
from prefect.context import FlowRunContext

from curation.contact_sheet import SHEET_FILE
from curation.datacard import DATACARD_MARKDOWN
from curation.entities import EntityIndex
from evaluation.charts import HEIGHT, WIDTH, Line, lines_chart
from evaluation.curves import curves, read_metrics

TOP_ENTITIES = 30
LOSSES = {"total": "#1b5e9c", "contrastive": "#c2571a", "entity": "#2f7d4f", "nouns": "#8a3d8f", "mask": "#7a6a1a"}
"""name in metrics.jsonl -> colour in the picture"""
NAMES_WIDTH = 80
STYLE = (
    "svg { background: white } .grid { stroke: #ddd } .line { fill: none; stroke-width: 1.5 } "
    ".tick { font: 9px sans-serif; fill: #555 }"
)


def show_datacard(folder: Path) -> None:
    """Show the data card that a stage has left in its folder."""
    if FlowRunContext.get():
        text = (folder / DATACARD_MARKDOWN).read_text(encoding="utf-8")
        create_markdown_artifact(text, key=f"datacard-{folder.name}", description=f"Data card of {folder}")


def show_entities(data_dir: Path) -> None:
    """Show the entities that most captions name."""
    if FlowRunContext.get():
        counts = EntityIndex(data_dir).counts()
        said = f"Most named of {len(counts):,} entities; the others are in {data_dir / 'postings'}"
        create_table_artifact(counts.slice(0, TOP_ENTITIES).to_pylist(), key="entities", description=said)


def show_pairs(data_dir: Path) -> None:
    """Show the sheet of example pairs, where there is one."""
    sheet = data_dir / "pairs" / SHEET_FILE
    if FlowRunContext.get() and sheet.exists():
        said = f"Images and the partners drawn for them; {sheet}"
        create_image_artifact(_address("image/jpeg", sheet.read_bytes()), key="pairs", description=said)


def show_losses(phase_dir: Path) -> None:
    """Show the losses of a phase over its steps."""
    if FlowRunContext.get():
        lines = {name: line for name, line in curves(read_metrics(phase_dir)).items() if name in LOSSES}
        ends = ", ".join(f"{line.name} {line.values[0]:.3g} to {line.values[-1]:.3g}" for line in lines.values())
        picture = _address("image/svg+xml", losses_picture(lines).encode())
        create_image_artifact(picture, key=f"losses-{phase_dir.name}", description=ends)


def show_classes(result: Mapping[str, Any]) -> None:
    """Show the IoU of each class under each model and baseline, and their mean."""
    if FlowRunContext.get():
        rows = [
            {"class": name, **{row["name"]: _percent(row["iou"][name]) for row in result["results"]}}
            for name in result["classes"]
        ]
        mean = {"class": "mIoU", **{row["name"]: _percent(row["miou"]) for row in result["results"]}}
        said = f"IoU in percent on {result['benchmark']['title']}, {len(result['images']):,} images"
        create_table_artifact([mean, *rows], key="classes", description=said)


def show_report(page: Path, title: str) -> None:
    """Link the report. Browsers open no file from a page, so its path is told too."""
    if FlowRunContext.get():
        said = f"Copy the address, or open {page.resolve()}: browsers follow no link from a page to a file."
        create_link_artifact(page.resolve().as_uri(), link_text=f"report of {title}", key="report", description=said)


def losses_picture(lines: Mapping[str, Line]) -> str:
    """Return an SVG file of losses over steps, each named in its colour."""
    colours = [LOSSES[name] for name in lines]
    chart = lines_chart(list(lines.values()), colours, "step")
    names = "".join(
        f'<text class="tick" x="{WIDTH}" y="{20 + 13 * at}" style="fill: {colour}">{line.name}</text>'
        for at, (line, colour) in enumerate(zip(lines.values(), colours, strict=True))
    )
    drawn = chart.partition(">")[2].removesuffix("</svg>")
    width = WIDTH + NAMES_WIDTH
    size = f'viewBox="0 0 {width} {HEIGHT}" width="{3 * width}" height="{3 * HEIGHT}"'
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size}><style>{STYLE}</style>{drawn}{names}</svg>'


def _address(kind: str, content: bytes) -> str:
    # Prefect keeps an address, not a picture: this one holds the picture.
    return f"data:{kind};base64,{b64encode(content).decode()}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f}"
