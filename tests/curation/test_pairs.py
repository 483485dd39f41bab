from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation import pairs
from curation.images import Partners, Samples, write_samples
from curation.manifest import close_stage, open_stage
from curation.pairs import PairIndex, PairsConfig, build_pairs
from curation.schema import SAMPLES, image_key

CONFIG = PairsConfig(num_partners=4, index_dims=64)
IMAGES = {
    "a.jpg": [["cat", "sofa"], ["cat"]],
    "b.jpg": ["cat"],
    "c.jpg": ["sofa", "dog"],
    "d.jpg": ["zebra"],
    "e.jpg": ["cat", "sofa"],
    "lost.jpg": ["dog"],
}


def _store(data_dir: Path, images: dict[str, Any]) -> Path:
    """Write images/ as a download would have left it; lost.jpg is a failure."""
    rows = []
    for address, captions in images.items():
        texts = captions if isinstance(captions[0], list) else [captions]
        entries = [{"text": " and ".join(entities), "mentions": []} for entities in texts]
        rows.append({"key": image_key(address), "captions": entries})
    stored = sorted((row for row in rows if row["key"] != image_key("lost.jpg")), key=lambda row: row["key"])
    open_stage(data_dir / "images", "download", {}, {})
    write_samples(data_dir / "images", [pa.Table.from_pylist([row], schema=SAMPLES) for row in stored], "digest")
    close_stage(data_dir / "images", [])
    return data_dir


@pytest.fixture
def data_dir(make_data: Any, tmp_path: Path) -> Path:
    return _store(make_data(tmp_path / "data", IMAGES, num_parts=2), IMAGES)


def _names(table: pa.Table) -> list[tuple[str, str, str]]:
    address = {image_key(image): image for image in IMAGES}
    return [(address[row["key"]], address[row["pair_key"]], row["entity"]) for row in table.to_pylist()]


def test_pairs_share_their_entity_and_are_counted(data_dir: Path) -> None:
    manifest = build_pairs(data_dir, CONFIG)
    drawn = _names(pq.read_table(data_dir / "pairs" / "part-00000.parquet"))
    shared = {"cat": {"a.jpg", "b.jpg", "e.jpg"}, "sofa": {"a.jpg", "c.jpg", "e.jpg"}}
    assert all({image, partner} <= shared[entity] and image != partner for image, partner, entity in drawn)
    # d.jpg alone shows a zebra, and the other dog is lost: c.jpg is paired by its sofa only.
    assert sorted(image for image, _, _ in drawn) == sorted(["a.jpg", "b.jpg", "c.jpg", "e.jpg"] * 4)
    assert manifest.rows == 16
    assert manifest.counts == {"images": 5, "no entity": 0, "no other image with its entities": 1}
    card = json.loads((data_dir / "pairs" / "datacard.json").read_text())
    assert card["tables"]["entities"] == [
        {"entity": "cat", "images": 3},
        {"entity": "sofa", "images": 3},
        {"entity": "dog", "images": 1},
        {"entity": "zebra", "images": 1},
    ]
    assert card["figures"]["entities of a single image"] == 2


def test_partners_file_and_index_tell_the_same_pairs(data_dir: Path) -> None:
    build_pairs(data_dir, CONFIG)
    samples = Samples(data_dir / "images")
    partners, index = Partners(data_dir / "pairs", samples), PairIndex(data_dir)
    for row, key in enumerate(samples.keys.tolist()):
        rows, entities = partners.of(row)
        table = index.partners(key)
        assert table["pair_key"].to_pylist() == samples.keys[rows].tolist()
        assert table["entity"].to_pylist() == entities
        assert set(table["score"].to_pylist()) <= {0.0}
    with pytest.raises(KeyError, match="no such image"):
        index.partners(1)


def test_parts_hold_the_same_pairs_whatever_their_size(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_pairs(data_dir, CONFIG)
    whole = pq.read_table(data_dir / "pairs" / "part-00000.parquet")
    shutil.rmtree(data_dir / "pairs")
    monkeypatch.setattr(pairs, "IMAGES_PER_PART", 2)
    manifest = build_pairs(data_dir, CONFIG)
    assert len(manifest.parts) == 3
    assert pa.concat_tables(pq.read_table(data_dir / "pairs" / part.name) for part in manifest.parts).equals(whole)
    keys = Samples(data_dir / "images").keys.tolist()
    assert sum(len(PairIndex(data_dir).partners(key)) for key in keys) == len(whole)


def test_similar_images_come_by_caption_and_within_an_entity(data_dir: Path) -> None:
    build_pairs(data_dir, CONFIG)
    index, key = PairIndex(data_dir), image_key
    found = index.similar(key("e.jpg"), 2)
    assert found["key"].to_pylist()[0] == key("a.jpg")
    assert found["score"].to_pylist() == sorted(found["score"].to_pylist(), reverse=True)
    assert set(index.similar(key("e.jpg"), 9)["key"].to_pylist()) == {key(f"{name}.jpg") for name in "abcd"}
    assert set(index.similar(key("e.jpg"), 9, entity="sofa")["key"].to_pylist()) == {key("a.jpg"), key("c.jpg")}
    vector = np.zeros(64, np.float32)
    vector[0] = 1
    assert len(index.similar(vector, 5)) == 5
    with pytest.raises(ValueError, match="entity 'cow' is unknown; known: cat, dog, sofa, zebra"):
        index.similar(key("e.jpg"), 2, entity="cow")


def test_without_an_index_similar_says_so(data_dir: Path) -> None:
    build_pairs(data_dir, PairsConfig(index_dims=None))
    with pytest.raises(FileNotFoundError, match=r"captions\.faiss: not there; it is made when index_dims is set"):
        PairIndex(data_dir).similar(image_key("a.jpg"), 1)


def test_a_finished_stage_is_kept_and_another_seed_refused(data_dir: Path) -> None:
    first = build_pairs(data_dir, CONFIG)
    assert build_pairs(data_dir, CONFIG) == first
    with pytest.raises(ValueError, match=r"config\.seed = 0 \(now 1\)"):
        build_pairs(data_dir, PairsConfig(num_partners=4, index_dims=64, seed=1))


@settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(entities=st.lists(st.sets(st.sampled_from("abcd"), min_size=1), min_size=1, max_size=8), seed=st.integers(0, 9))
def test_every_draw_shares_its_entity_is_never_the_image_and_repeats(
    make_data: Any, tmp_path_factory: Any, entities: list[set[str]], seed: int
) -> None:
    images = {f"{number}.jpg": sorted(each) for number, each in enumerate(entities)}
    own = {image_key(image): set(each) for image, each in images.items()}
    tables = []
    for _ in range(2):
        data_dir = _store(make_data(tmp_path_factory.mktemp("pairs"), images), images)
        build_pairs(data_dir, PairsConfig(num_partners=3, seed=seed, index_dims=None))
        tables.append(pq.read_table(data_dir / "pairs" / "part-00000.parquet"))
    assert tables[0].equals(tables[1])
    for row in tables[0].to_pylist():
        assert row["key"] != row["pair_key"]
        assert row["entity"] in own[row["key"]] & own[row["pair_key"]]
    has_partner = {
        key for key in own if any(entity in own[other] for other in own if other != key for entity in own[key])
    }
    assert len(tables[0]) == 3 * len(has_partner)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"num_partners": 0}, "num_partners = 0: expected at least 1"),
        ({"kind": "similar"}, "kind = 'similar': expected 'uniform'"),
        ({"seed": -1}, "seed = -1: expected 0 or more"),
        ({"index_dims": 0}, "index_dims = 0: expected at least 1, or None"),
    ],
)
def test_impossible_settings_are_refused(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairsConfig(**settings_)
