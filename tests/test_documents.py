"""What the documents tell people to type works."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import duckdb
import pytest

from curation.entities import EntityIndex
from curation.manifest import read_manifest
from flows.cli import main

ROOT = Path(__file__).resolve().parent.parent
CURATION = (ROOT / "docs" / "curation.md").read_text()
CAPTIONS = [
    ("http://a.example/1.jpg", "a cat asleep on a sofa"),
    ("http://a.example/2.jpg", "a cat and a dog on a couch"),
    ("http://b.example/3.jpg", "two cats on the bed"),
    ("http://b.example/4.jpg", "a thought"),
    ("http://b.example/5.jpg", "a cat"),
    ("not an address", "a cat"),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", CURATION, re.DOTALL)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder in which every command of the page was run in turn."""
    place = tmp_path_factory.mktemp("documents")
    (place / "captions.tsv").write_text("".join(f"{url}\t{caption}\n" for url, caption in CAPTIONS))
    (place / "removed.txt").write_text("# asked in May\nb.example\n")
    commands = re.findall(r"^    ovseg (.*)$", CURATION, re.MULTILINE)
    assert len(commands) > 10
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        for command in commands:
            assert main(shlex.split(command)) == 0, command
    return place


def test_the_commands_of_the_page_do_what_it_says(place: Path) -> None:
    assert EntityIndex(place / "data").count("cat") == 4
    for folder in ("entities", "postings"):
        assert read_manifest(place / "rebuilt" / folder).digest == read_manifest(place / "data" / folder).digest
    assert EntityIndex(place / "cleaned").count("cat") == 2
    assert "Co-occurrence" in (place / "report" / "index.html").read_text()
    assert "## Captions that name an entity" in (place / "data" / "datacard.md").read_text()
    assert not (place / "cc12m").exists()


def test_the_python_of_the_page_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    ours, with_pandas = blocks("python")
    exec(ours, {})
    names: dict[str, object] = {}
    exec(with_pandas, names)
    assert len(names["both"]) == EntityIndex(place / "data").count("cat and sofa") == 2  # type: ignore[arg-type]


def test_plain_duckdb_gives_our_answers(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place / "data")
    index = EntityIndex(".")
    conjunction, counts, beside, refused = (duckdb.sql(query).fetchall() for query in blocks("sql"))
    answers = index.query("cat and sofa and not dog").to_pylist()
    assert conjunction == [(row["url"], row["caption"]) for row in answers] == [CAPTIONS[0]]
    assert counts == [tuple(row.values()) for row in index.counts().to_pylist()]
    together = {row["entity"]: row["captions"] for row in index.together("cat").to_pylist()}
    assert dict(beside) == {entity: count for entity, count in together.items() if entity != "cat"}
    assert refused == [("address is not http or https", 1)]
