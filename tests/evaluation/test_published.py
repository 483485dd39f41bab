"""Published figures: the tables of the source, read back from the data file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from evaluation import published

BENCHMARKS = ("voc", "context", "coco_object", "ade20k")


def _tables(path: Path) -> list[list[list[str]]]:
    """Return the cells of every Markdown table of a file, without its head."""
    tables: list[list[list[str]]] = []
    before = ""
    for line in path.read_text().splitlines():
        if line.startswith("|"):
            if not before.startswith("|"):
                tables.append([])
            tables[-1].append([cell.strip() for cell in line.strip("|").split("|")])
        before = line
    return [table[2:] for table in tables]


def _number(cell: str) -> float | None:
    found = re.match(r"\d+\.\d", cell)
    return float(found[0]) if found else None


@pytest.mark.real_data
@pytest.mark.parametrize(("column", "benchmark"), [*enumerate(BENCHMARKS, 5)])
def test_transfer_figures_are_those_of_the_source(shared: Path, column: int, benchmark: str) -> None:
    rows = _tables(shared / "reference/PUBLISHED.md")[0]
    expected = [
        (row[0].split(" (")[0], row[1], row[2], row[3], row[4] == "yes", _number(row[column]))
        for row in rows
        if _number(row[column]) is not None
    ]
    found = [
        (row.method.split(" (")[0], row.backbone, row.data, row.supervision, row.zero_shot, row.miou)
        for row in published.figures(benchmark)
    ]
    assert found == expected


@pytest.mark.real_data
@pytest.mark.parametrize(("column", "benchmark"), [(4, "voc"), (5, "context")])
def test_unseen_figures_are_those_of_the_source(shared: Path, column: int, benchmark: str) -> None:
    rows = _tables(shared / "reference/PUBLISHED.md")[1]
    expected = [
        (row[0].split(" (")[0], row[1], row[2] == "yes", row[3] == "yes", _number(row[column]))
        for row in rows
        if _number(row[column]) is not None
    ]
    found = [
        (row.method.split(" (")[0], row.data, row.trains_on_masks, row.sees_unseen_names, row.miou)
        for row in published.unseen_figures(benchmark)
    ]
    assert found == expected


@pytest.mark.real_data
def test_masking_objectives_and_properties_are_those_of_the_source(shared: Path) -> None:
    text = " ".join((shared / "reference/PUBLISHED.md").read_text().split())
    sentence = text[text.index("Masking objective (") : text.index("Example:")]
    pairs = re.findall(r"(\d+\.\d) / (\d+\.\d)", sentence)
    voc, context = published.objective_figures("voc"), published.objective_figures("context")
    assert [(f"{one.miou}", f"{two.miou}") for one, two in zip(voc, context, strict=True)] == pairs
    assert all(row.objective in sentence for row in voc[:-1])
    words = text[text.index("Properties (") :]
    for row in published.properties():
        answers = (row.open_vocabulary, row.mask_free, row.zero_shot, row.data_efficient)
        assert f"{row.method} {' '.join('yes' if answer else 'no' for answer in answers)}" in words


def test_every_figure_says_whether_it_can_be_compared() -> None:
    rows = [row for name in BENCHMARKS for row in (*published.figures(name), *published.unseen_figures(name))]
    assert len(rows) > 50
    assert all(row.comparable.startswith(("yes: ", "in part: ", "no: ")) and row.source for row in rows)
    assert all(row.comparable.startswith("no: ") for row in published.figures("voc") if not row.zero_shot)


def test_a_benchmark_without_published_figures_has_none() -> None:
    assert published.figures("scenes") == []
