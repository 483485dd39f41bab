"""Data cards: what a stage read, kept and left out, as JSON for programs and Markdown for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from curation.manifest import replacing

DATACARD = "datacard.json"
DATACARD_MARKDOWN = "datacard.md"
FOLDERS = ("captions", "entities", "postings", "images", "pairs")
"""The folders with a card, in the order of the data."""

Figure = int | float | str


def write_datacard(
    folder: Path,
    title: str,
    figures: Mapping[str, Figure],
    drops: Mapping[str, int] | None = None,
    tables: Mapping[str, list[dict[str, Any]]] | None = None,
    picture: str | None = None,
) -> None:
    """Write `datacard.json` and `datacard.md` of a data folder.

    `drops` counts what was left out by reason; `tables` are lists of rows whose keys are the column names; `picture` is
    the name of a file in the folder.
    """
    card = {"title": title, "figures": dict(figures), "drops": dict(drops or {}), "tables": dict(tables or {})}
    if picture:
        card["picture"] = picture
    text = json.dumps(card, indent=2, ensure_ascii=False, default=_plain_number)
    _write(folder, text, _markdown(json.loads(text), "#"))


def read_datacard(folder: Path) -> dict[str, Any]:
    """Return the content of a folder's data card."""
    card: dict[str, Any] = json.loads((folder / DATACARD).read_text(encoding="utf-8"))
    return card


def counted(column: pa.ChunkedArray) -> dict[Any, int]:
    """Return how often each value of a column occurs; nulls are left out."""
    return {row["values"]: row["counts"] for row in column.drop_null().value_counts().to_pylist()}


def join_datacards(data_dir: Path) -> Path:
    """Write `datacard.json` and `datacard.md` of a whole data folder from those of its stages; return the latter.

    Raises: FileNotFoundError when no stage has finished.
    """
    cards = {name: read_datacard(data_dir / name) for name in FOLDERS if (data_dir / name / DATACARD).exists()}
    if not cards:
        raise FileNotFoundError(f"{data_dir}: no stage has left a data card; run `ovseg ingest` first")
    blocks = ["# Data card\n", *(_markdown(card, "##", f"{name}/") for name, card in cards.items())]
    _write(data_dir, json.dumps(cards, indent=2, ensure_ascii=False), "\n".join(blocks))
    return data_dir / DATACARD_MARKDOWN


def _write(folder: Path, text: str, markdown: str) -> None:
    with replacing(folder / DATACARD) as path:
        path.write_text(text + "\n", encoding="utf-8")
    with replacing(folder / DATACARD_MARKDOWN) as path:
        path.write_text(markdown, encoding="utf-8")


def _markdown(card: Mapping[str, Any], level: str, folder: str = "") -> str:
    blocks = [f"{level} {card['title']}", _table(("figure", "value"), card["figures"].items())]
    if card["drops"]:
        by_count = sorted(card["drops"].items(), key=lambda drop: -drop[1])
        blocks += [f"{level}# Left out, by reason", _table(("reason", "rows"), by_count)]
    for name, rows in card["tables"].items():
        columns = list(dict.fromkeys(column for row in rows for column in row))
        blocks += [f"{level}# {name}", _table(columns, ([row.get(column, "") for column in columns] for row in rows))]
    if "picture" in card:
        blocks.append(f"![{card['title']}]({folder}{card['picture']})")
    return "\n\n".join(blocks) + "\n"


def _table(header: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    head = list(header)
    lines = [head, ["---"] * len(head), *([_cell(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def _plain_number(value: Any) -> Any:
    # numpy's numbers have no JSON form of their own.
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"a data card holds numbers and strings, found {type(value).__name__}: {value!r}")
