from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.datacard import read_datacard
from curation.entities import ROW_GROUP_ROWS, VOCABULARY_NAME, EntityIndex, write_postings
from curation.manifest import close_stage, open_stage, write_part
from curation.schema import ENTITIES, POSTINGS, part_name
from curation.vocabulary import vocabulary_path


def row(number: int, entities: list[str]) -> dict[str, object]:
    # Two captions per image, so that captions and images count differently.
    fields = {"key": number // 2, "caption_id": number % 2, "url": f"http://a/{number // 2}", "image": None}
    return {**fields, "caption": f"caption {number}", "entities": entities, "mentions": []}


def data_folder(folder: Path, parts: list[list[list[str]]], row_group_size: int = ROW_GROUP_ROWS) -> Path:
    """Write entities/ from the entities of each caption of each part, and its postings/."""
    open_stage(folder / "entities", "parse", {}, {})
    shutil.copyfile(vocabulary_path("cc4m"), folder / "entities" / VOCABULARY_NAME)
    written, number = [], 0
    for part, captions in enumerate(parts):
        rows = [row(number + at, entities) for at, entities in enumerate(captions)]
        number += len(captions)
        table = pa.Table.from_pylist(rows, schema=ENTITIES)
        written.append(write_part(folder / "entities", part_name(part), table, row_group_size=row_group_size))
    close_stage(folder / "entities", written)
    write_postings(folder)
    return folder


PARTS = [[["cat"], ["dog", "cat"], ["sofa"]], [], [["cat", "sofa"], ["people"], ["dog"], ["sofa", "dog", "cat"]]]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> EntityIndex:
    return EntityIndex(data_folder(tmp_path_factory.mktemp("data"), PARTS, row_group_size=2))


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("cat", [0, 1, 3, 6]),
        ("couch and cats", [3, 6]),
        ("cat and not dog", [0, 3]),
        ("not cat", [2, 4, 5]),
        ("person or sofa and dog", [4, 6]),
        ("(people or sofa) and not dog", [2, 3, 4]),
        ("giraffe", []),
        ("not giraffe", [0, 1, 2, 3, 4, 5, 6]),
    ],
)
def test_queries_return_whole_rows_in_the_order_of_the_captions(
    index: EntityIndex, query: str, numbers: list[int]
) -> None:
    entities = [entities for part in PARTS for entities in part]
    found = index.query(query)
    assert found.schema == ENTITIES
    assert found.to_pylist() == [row(number, entities[number]) for number in numbers]


def test_limit_takes_the_first_hits(index: EntityIndex) -> None:
    assert index.query("cat", limit=2)["caption"].to_pylist() == ["caption 0", "caption 1"]
    assert index.query("cat", limit=0).num_rows == 0
    with pytest.raises(ValueError, match="limit = -1: expected 0 or more rows, or None for all"):
        index.query("cat", limit=-1)


def test_counts_tell_captions_from_images(index: EntityIndex) -> None:
    # Captions 0 and 1 are of one image, so are 6 and (not there) 7; most frequent first, then by name.
    assert index.counts().to_pylist() == [
        {"entity": "cat", "captions": 4, "images": 3},
        {"entity": "dog", "captions": 3, "images": 3},
        {"entity": "sofa", "captions": 3, "images": 2},
        {"entity": "people", "captions": 1, "images": 1},
    ]


def test_card_holds_the_counts(tmp_path: Path) -> None:
    folder = data_folder(tmp_path, PARTS)
    card = read_datacard(folder / "postings")
    assert card["figures"] == {
        **{"captions": 7, "images": 4, "postings": 11, "entities": 4},
        "entities per caption, mean": 11 / 7,
        "captions that name a single entity, share": 4 / 7,
        "pairs of entities that occur together": 3,
    }
    assert card["tables"]["entities"] == EntityIndex(folder).counts().to_pylist()
    assert card["tables"]["co-occurrence"] == [
        {"entity": "cat", "cat": 4, "dog": 2, "sofa": 2, "people": 0},
        {"entity": "dog", "cat": 2, "dog": 3, "sofa": 1, "people": 0},
        {"entity": "sofa", "cat": 2, "dog": 1, "sofa": 3, "people": 0},
        {"entity": "people", "cat": 0, "dog": 0, "sofa": 0, "people": 1},
    ]


def test_pairs_and_neighbours_are_counted(index: EntityIndex) -> None:
    assert index.together().to_pylist() == [
        {"entity": "cat", "other": "dog", "captions": 2},
        {"entity": "cat", "other": "sofa", "captions": 2},
        {"entity": "dog", "other": "sofa", "captions": 1},
    ]
    assert index.together("cat and not sofa").to_pylist() == [
        {"entity": "cat", "captions": 2},
        {"entity": "dog", "captions": 1},
    ]
    assert index.together("giraffe").num_rows == 0


def test_a_query_is_counted(index: EntityIndex) -> None:
    assert [index.count(query) for query in ("cat", "cat and sofa", "not cat", "giraffe")] == [4, 2, 3, 0]


def test_a_sample_is_the_same_for_a_seed_and_holds_answers_only(index: EntityIndex) -> None:
    assert index.sample(2, 7, "cat") == index.sample(2, 7, "cat")
    drawn = {tuple(index.sample(2, seed, "cat")["caption"].to_pylist()) for seed in range(40)}
    answers = index.query("cat")["caption"].to_pylist()
    assert drawn == {(a, b) for at, a in enumerate(answers) for b in answers[at + 1 :]}
    assert index.sample(99, 0, "cat") == index.query("cat")
    assert index.sample(99).num_rows == 7
    with pytest.raises(ValueError, match="sample = -1: expected 0 or more rows"):
        index.sample(-1)


def test_no_row_group_of_postings_holds_two_entities(tmp_path: Path) -> None:
    path = data_folder(tmp_path, PARTS) / "postings" / part_name(0)
    assert pq.read_metadata(path).num_row_groups == 4
    pq.write_table(pq.read_table(path), path)
    with pytest.raises(
        ValueError, match=r"holds both 'cat' and 'sofa', as earlier versions wrote it; remove .*postings"
    ):
        EntityIndex(tmp_path)


def test_postings_are_sorted_and_say_where_each_caption_lies(tmp_path: Path) -> None:
    folder = data_folder(tmp_path, PARTS)
    postings = pq.read_table(folder / "postings" / part_name(0))
    assert postings.schema == POSTINGS
    rows = [(hit["entity"], hit["part"], hit["row"]) for hit in postings.to_pylist()]
    assert rows == sorted(rows)
    assert len(rows) == sum(len(entities) for part in PARTS for entities in part)
    assert all(entity in PARTS[part][at] for entity, part, at in rows)


def test_errors_point_at_the_word(index: EntityIndex) -> None:
    with pytest.raises(ValueError, match=r"query, character 9: unknown word 'sofaa'; near it: sofa"):
        index.query("cat and sofaa")


def test_a_folder_that_was_not_parsed_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"the stage that makes entities/ is not there"):
        EntityIndex(tmp_path)


def test_a_folder_without_captions_answers_nothing(tmp_path: Path) -> None:
    index = EntityIndex(data_folder(tmp_path, []))
    assert index.query("not cat").num_rows == 0
    assert index.counts().num_rows == 0


names = st.sampled_from(["cat", "dog", "sofa", "people"])


@settings(deadline=None, max_examples=25)
@given(st.lists(st.lists(st.lists(names, min_size=1, max_size=3, unique=True), max_size=6), max_size=3), names, names)
def test_answers_are_those_of_a_plain_scan(
    tmp_path_factory: pytest.TempPathFactory, parts: list[list[list[str]]], first: str, second: str
) -> None:
    index = EntityIndex(data_folder(tmp_path_factory.mktemp("data"), parts, row_group_size=2))
    captions = [entities for part in parts for entities in part]
    for text, hit in (
        (f"{first} and not {second}", lambda e: first in e and second not in e),
        (f"{first} or not {second}", lambda e: first in e or second not in e),
    ):
        expected = [f"caption {number}" for number in np.flatnonzero([hit(entities) for entities in captions])]
        assert index.query(text)["caption"].to_pylist() == expected
