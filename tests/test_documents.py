"""What the documents tell people to type works."""

from __future__ import annotations

import ast
import re
import shlex
from pathlib import Path

import duckdb
import numpy as np
import pytest
from PIL import Image

from curation.entities import EntityIndex
from curation.manifest import read_manifest
from curation.schema import image_key
from flows.cli import main

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
SEGMENT = (ROOT / "docs" / "segment.md").read_text()
CURATION = (ROOT / "docs" / "curation.md").read_text()
IMAGES = (ROOT / "docs" / "images.md").read_text()
CAPTIONS = [
    ("http://a.example/1.jpg", "a cat asleep on a sofa"),
    ("http://a.example/2.jpg", "a cat and a dog on a couch"),
    ("http://b.example/3.jpg", "two cats on the bed"),
    ("http://b.example/4.jpg", "a thought"),
    ("http://b.example/5.jpg", "a cat"),
    ("not an address", "a cat"),
]


def blocks(language: str, text: str = CURATION) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


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


@pytest.fixture
def with_model(tmp_path: Path, saved_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the working folder, with a model where the demo leaves its own, and two photographs."""
    (tmp_path / "runs/demo/phase2").mkdir(parents=True)
    (tmp_path / "runs/demo/phase2/model").symlink_to(saved_model)
    (tmp_path / "photos").mkdir()
    pixels_HWC = np.random.default_rng(0).integers(0, 256, (40, 56, 3), np.uint8)
    for name in ("photo.jpg", "photos/a.jpg", "photos/b.png"):
        Image.fromarray(pixels_HWC).save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.usefixtures("with_model")
def test_the_readme_segments_in_five_lines(capsys: pytest.CaptureFixture[str]) -> None:
    (source,) = [block for block in blocks("python", README) if "label_image" in block]
    assert len([line for line in source.splitlines() if line]) == 5
    exec(source, {})
    shares = ast.literal_eval(capsys.readouterr().out)
    assert list(shares) == ["background", "cat", "car"]
    assert sum(shares.values()) == pytest.approx(1)


def test_the_commands_for_masks_do_what_the_page_says(with_model: Path) -> None:
    commands = re.findall(r"^    ovseg (segment .*)$", README + SEGMENT, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        assert main([*shlex.split(command), "--device", "cpu"]) == 0, command
    named = re.findall(r"^\| `(masks/[^`]*)` \|", SEGMENT, re.MULTILINE)
    assert len(named) == 4
    assert all((with_model / name).exists() for name in named)
    names: dict[str, object] = {}
    exec(blocks("python", SEGMENT)[0], names)
    assert set(names["coco"].dataset["categories"][0]) == {"id", "name"}  # type: ignore[attr-defined]


def test_captions_beside_images_become_a_data_folder_that_refers_to_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos" / "00000").mkdir(parents=True)
    for name in ("000", "001"):
        Image.effect_noise((40, 30), 60).save(f"photos/00000/{name}.jpg")
        Path(f"photos/00000/{name}.txt").write_text(f"a cat, number {name}")
    table, read = blocks("python", IMAGES)
    exec(table, {})
    Path("captions.jsonl").write_text(capsys.readouterr().out)
    for command in ("ingest captions.jsonl --out data", "parse data"):
        assert main(shlex.split(command)) == 0, command
    assert main(shlex.split("download data --image-root photos --set in_place=true")) == 0
    key = image_key("00000/001.jpg")
    names: dict[str, object] = {"key": key}
    exec(read.replace("s3://bucket/data/images", "data/images"), names)
    assert names["image"] == Path("photos/00000/001.jpg").read_bytes()
