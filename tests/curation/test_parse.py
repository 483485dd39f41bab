from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.captions import IngestConfig, ingest
from curation.datacard import read_datacard
from curation.entities import EntityIndex
from curation.manifest import Part, read_manifest
from curation.parse import NO_FORM, NO_NOUN, CaptionParser, ParseConfig, PartJob, parse
from curation.schema import ENTITIES
from curation.vocabulary import Vocabulary

PARSER = CaptionParser(Vocabulary.load("cc4m"))


def entities(caption: str) -> list[str]:
    (mentions,) = PARSER.parse([caption])
    return [mention.entity for mention in mentions]


@pytest.mark.parametrize(
    ("caption", "expected"),
    [
        ("two dogs and a cat sleep on the couch .", ["dog", "cat", "sofa"]),
        ("A man in an orange shirt rides a bike", ["people", "shirt", "bicycle"]),
        ("A MAN IN AN ORANGE SHIRT RIDES A BIKE", ["people", "shirt", "bicycle"]),
        ("A Man In An Orange Shirt Rides A Bike", ["people", "shirt", "bicycle"]),
        ("dress in light blue", []),
        ("how to train your puppy", []),
        ("a man in a T-shirt", ["people", "shirt"]),
        ("photo from https://cat.example/dog.jpg", []),
        ("view of the mountains", []),
        ("", []),
    ],
)
def test_only_nouns_name_entities(caption: str, expected: list[str]) -> None:
    assert entities(caption) == expected


def test_mentions_stay_with_their_captions() -> None:
    captions = ["nothing here", "a cat", "", "light blue", "a dog and a dog"]
    found = [[(m.entity, m.start, m.end) for m in mentions] for mentions in PARSER.parse(captions)]
    assert found == [[], [("cat", 2, 5)], [], [], [("dog", 2, 5), ("dog", 12, 15)]]
    assert PARSER.parse([]) == []


words = st.sampled_from(
    ["a", "cat", "Dogs", "T-shirt", "orange", "İstanbul", "é", "🐈", "'s", ",", "\n", "\u00a0", "#"]
)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(words, max_size=8).map(" ".join) | st.text(max_size=12), max_size=4))
def test_offsets_slice_to_the_surface_text_whatever_the_caption(captions: list[str]) -> None:
    surfaces = {"cat": "cat", "dogs": "dog", "t-shirt": "shirt", "orange": "orange"}
    for caption, reading in zip(captions, PARSER.read(captions), strict=True):
        for mention in reading.mentions:
            assert surfaces[caption[mention.start : mention.end].lower()] == mention.entity


def test_a_config_that_cannot_be_says_why() -> None:
    with pytest.raises(ValueError, match=r"spacy_models = \(\): expected a name or more"):
        ParseConfig(spacy_models=())
    with pytest.raises(ValueError, match=r"rule = 'regex': expected one of spacy, exact"):
        ParseConfig(rule="regex")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"person = True has no place in the published rule; set rule = spacy"):
        ParseConfig(rule="exact", person=True)


CAPTIONS = ["a cat on a sofa", "view of the sea", "light blue dress", "two men with a dog", "men and women", "the cat"]


def captions_folder(folder: Path) -> Path:
    table = folder.with_suffix(".tsv")
    table.write_text("url\tcaption\n" + "".join(f"http://a/{at}\t{text}\n" for at, text in enumerate(CAPTIONS)))
    ingest(table, folder, IngestConfig(part_rows=2))
    return folder


def test_parts_follow_the_captions_and_keep_those_that_name_an_entity(tmp_path: Path) -> None:
    folder = captions_folder(tmp_path / "data")
    manifest = parse(folder)
    assert [part.name for part in manifest.parts] == [part.name for part in read_manifest(folder / "captions").parts]
    tables = [pq.read_table(folder / "entities" / part.name) for part in manifest.parts]
    assert all(table.schema == ENTITIES for table in tables)
    rows = [row for table in tables for row in table.to_pylist()]
    assert [(row["caption"], row["entities"]) for row in rows] == [
        ("a cat on a sofa", ["cat", "sofa"]),
        ("two men with a dog", ["people", "dog"]),
        ("men and women", ["people"]),
        ("the cat", ["cat"]),
    ]
    assert rows[2]["mentions"] == [
        {"entity": "people", "start": 0, "end": 3},
        {"entity": "people", "start": 8, "end": 13},
    ]
    assert rows[0]["url"] == "http://a/0"
    expected = {"read": 6, "kept": 4, "mentions": 7, NO_FORM: 1, NO_NOUN: 1}
    assert {name: manifest.counts[name] for name in expected} == expected


def test_the_card_has_a_reason_for_every_caption_left_out(tmp_path: Path) -> None:
    folder = captions_folder(tmp_path / "data")
    parse(folder)
    card = read_datacard(folder / "entities")
    assert card["drops"] == {NO_FORM: 1, NO_NOUN: 1}
    assert card["figures"]["captions read"] - sum(card["drops"].values()) == card["figures"]["captions kept"]
    assert read_datacard(folder / "postings")["figures"]["captions"] == 4


def test_the_index_answers_from_what_was_parsed(tmp_path: Path) -> None:
    folder = captions_folder(tmp_path / "data")
    parse(folder)
    assert EntityIndex(folder).query("person and not dog")["caption"].to_pylist() == ["men and women"]


def test_noun_spans_are_written_on_request(tmp_path: Path) -> None:
    folder = captions_folder(tmp_path / "data")
    parse(folder, ParseConfig(nouns=True))
    row = pq.read_table(folder / "entities" / "part-00000.parquet").to_pylist()[0]
    assert [row["caption"][noun["start"] : noun["end"]] for noun in row["nouns"]] == ["cat", "sofa"]


def test_a_vocabulary_of_ones_own_travels_with_the_folder(tmp_path: Path) -> None:
    folder = captions_folder(tmp_path / "data")
    vocabulary = tmp_path / "sea.toml"
    vocabulary.write_text('[entities]\nwater = ["sea", "lake"]\n')
    assert parse(folder, ParseConfig(vocabulary=str(vocabulary))).rows == 1
    vocabulary.unlink()
    assert EntityIndex(folder).query("lakes")["caption"].to_pylist() == ["view of the sea"]


def test_another_vocabulary_is_refused_in_the_same_folder(tmp_path: Path) -> None:
    folder = captions_folder(tmp_path / "data")
    parse(folder)
    vocabulary = tmp_path / "sea.toml"
    vocabulary.write_text('[entities]\nwater = ["sea"]\n')
    with pytest.raises(ValueError, match=r"config\.vocabulary = 'cc4m' \(now 'sea'\).*remove the folder"):
        parse(folder, ParseConfig(vocabulary=str(vocabulary)))


def test_finished_parts_are_not_parsed_again(tmp_path: Path) -> None:
    whole, killed = captions_folder(tmp_path / "whole"), captions_folder(tmp_path / "killed")
    manifest = parse(whole)
    parse(killed)
    for name in ("manifest.json", "part-00001.parquet.json"):
        (killed / "entities" / name).unlink()
    first = killed / "entities" / "part-00000.parquet"
    written_ns = first.stat().st_mtime_ns
    assert parse(killed).digest == manifest.digest
    assert first.stat().st_mtime_ns == written_ns


def test_any_map_over_the_parts_gives_the_same_folder(tmp_path: Path) -> None:
    folders = [captions_folder(tmp_path / name) for name in ("one", "two")]

    def in_threads(do: Callable[[PartJob], Part], jobs: Iterable[PartJob]) -> Iterable[Part]:
        with ThreadPoolExecutor(1) as pool:
            yield from pool.map(do, jobs)

    assert parse(folders[0]).digest == parse(folders[1], map_parts=in_threads).digest
    postings = [read_manifest(folder / "postings").digest for folder in folders]
    assert postings[0] == postings[1]


def test_the_published_rule_keeps_what_equals_a_form(tmp_path: Path) -> None:
    folder = captions_folder(tmp_path / "data")
    manifest = parse(folder, ParseConfig(rule="exact"))
    tables = [pq.read_table(folder / "entities" / part.name) for part in manifest.parts]
    assert [(row["caption"], row["entities"]) for table in tables for row in table.to_pylist()] == [
        ("a cat on a sofa", ["cat", "sofa"]),
        ("light blue dress", ["light"]),
        ("two men with a dog", ["people", "dog"]),
        ("men and women", ["people"]),
        ("the cat", ["cat"]),
    ]


@pytest.mark.parametrize("rule", ["spacy", "exact"])
def test_the_card_counts_the_subset_under_both_rules_whichever_decides(
    tmp_path: Path, rule: Literal["spacy", "exact"]
) -> None:
    folder = captions_folder(tmp_path / "data")
    parse(folder, ParseConfig(rule=rule))
    table = {row["what"]: row for row in read_datacard(folder / "entities")["tables"]["kept under each rule"]}
    assert table["captions"] == {"what": "captions", "spacy": 4, "exact": 5}
    assert table["images"] == {"what": "images", "spacy": 4, "exact": 5}
    assert table["light"] == {"what": "light", "spacy": 0, "exact": 1}
    assert table["cat"] == {"what": "cat", "spacy": 2, "exact": 2}


def test_person_counts_on_request_and_its_effect_is_told_in_any_case(tmp_path: Path) -> None:
    table = tmp_path / "table.tsv"
    lines = ["<PERSON> with a cat", "a Person and a man", "person", "a dog", "personal things"]
    table.write_text("url\tcaption\n" + "".join(f"http://a/{at}\t{text}\n" for at, text in enumerate(lines)))
    kept = {}
    for person in (False, True):
        ingest(table, tmp_path / str(person))
        kept[person] = parse(tmp_path / str(person), ParseConfig(person=person)).rows
        figures = read_datacard(tmp_path / str(person) / "entities")["figures"]
        assert figures["captions with the word person"] == 3
        assert figures["captions with the word person and no other form"] == 1
    assert kept == {False: 3, True: 4}


def test_parse_wants_captions_first(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the stage that makes captions/ is not there; run it"):
        parse(tmp_path)


KILLED_AFTER_ONE_PART = """
import os, pathlib, signal, sys
from curation.parse import parse

def one_then_die(do, jobs):
    yield do(next(iter(jobs)))
    os.kill(os.getpid(), signal.SIGKILL)

parse(pathlib.Path(sys.argv[1]), map_parts=one_then_die)
"""


def test_killed_while_parsing_and_run_again_gives_the_same_folder(tmp_path: Path) -> None:
    whole, killed = (captions_folder(tmp_path / name) for name in ("whole", "killed"))
    ended = subprocess.run([sys.executable, "-c", KILLED_AFTER_ONE_PART, str(killed)], check=False)
    assert ended.returncode == -signal.SIGKILL
    assert [path.name for path in (killed / "entities").glob("*.parquet")] == ["part-00000.parquet"]
    assert parse(killed).digest == parse(whole).digest
    assert read_manifest(killed / "postings").digest == read_manifest(whole / "postings").digest


PARSED_BY_TWO = """
import pathlib, sys
from curation.parse import parse
from curation.workers import Workers

def two_workers(do, jobs):
    jobs = list(jobs)
    with Workers(f"{do.__module__}.{do.__name__}", 2, 300, pathlib.Path(sys.argv[1]) / "logs") as workers:
        done = {part.name: part for part in workers.run(jobs)}
    return [done[job.name] for job in jobs]

parse(pathlib.Path(sys.argv[1]), map_parts=two_workers)
"""


def test_two_workers_killed_in_the_middle_and_started_again_give_the_folder_of_one(tmp_path: Path) -> None:
    captions = CAPTIONS * 100
    table = tmp_path / "table.tsv"
    table.write_text("url\tcaption\n" + "".join(f"http://a/{at}\t{text}\n" for at, text in enumerate(captions)))
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        ingest(table, folder, IngestConfig(part_rows=20))
    command = [sys.executable, "-c", PARSED_BY_TWO, str(two)]
    killed = subprocess.Popen(command)
    deadline = time.monotonic() + 120
    while len(list((two / "entities").glob("part-*.parquet.json"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.kill()
    assert killed.wait(30) == -signal.SIGKILL
    assert 2 <= len(list((two / "entities").glob("part-*.parquet.json"))) < 30
    subprocess.run(command, check=True)
    assert read_manifest(two / "entities").digest == parse(one).digest
    assert read_manifest(two / "postings").digest == read_manifest(one / "postings").digest


@pytest.mark.real_data
def test_quality_on_the_hand_labelled_captions(shared: Path) -> None:
    assert f1(shared, str) >= 0.985


@pytest.mark.real_data
@pytest.mark.parametrize("change", [str.title, str.upper, str.capitalize, "“{}”!".format])
def test_quality_does_not_depend_on_case_and_punctuation(shared: Path, change: Callable[[str], str]) -> None:
    assert f1(shared, change) >= f1(shared, str) - 0.01


def f1(shared: Path, change: Callable[[str], str]) -> float:
    """Return micro F1 over (caption, entity) pairs, doubtful entities left out."""
    rows = [line.split("\t") for line in (shared / "gold" / "entities_dev.tsv").read_text().splitlines()]
    hits = errors = 0
    for (_, gold, doubtful), mentions in zip(rows, PARSER.parse([change(row[0]) for row in rows]), strict=True):
        ignored = set(doubtful.split(","))
        expected = set(filter(None, gold.split(","))) - ignored
        found = {mention.entity for mention in mentions} - ignored
        hits += len(expected & found)
        errors += len(expected ^ found)
    return 2 * hits / (2 * hits + errors)
