from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation import neighbours, pairs
from curation.embeddings import EmbedConfig, write_embeddings
from curation.images import Samples, write_samples
from curation.manifest import close_stage, open_stage
from curation.pair_index import PairIndex
from curation.pairs import PairsConfig, build_pairs
from curation.schema import SAMPLES, image_key

CONFIG = PairsConfig(num_partners=4, word_dims=64, sheet_entities=0)
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
        texts = captions if captions and isinstance(captions[0], list) else [captions]
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
    assert pq.read_table(data_dir / "pairs" / "left_out.parquet").to_pylist() == [
        {"key": image_key("d.jpg"), "partners": 0, "reason": "no other image with its entities"}
    ]
    card = json.loads((data_dir / "pairs" / "datacard.json").read_text())
    assert [{name: row[name] for name in ("entity", "images")} for row in card["tables"]["entities"]] == [
        {"entity": "cat", "images": 3},
        {"entity": "sofa", "images": 3},
        {"entity": "dog", "images": 1},
        {"entity": "zebra", "images": 1},
    ]
    assert card["figures"]["entities of a single image"] == 2


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


def test_a_finished_stage_is_kept_and_another_seed_refused(data_dir: Path) -> None:
    first = build_pairs(data_dir, CONFIG)
    assert build_pairs(data_dir, CONFIG) == first
    with pytest.raises(ValueError, match=r"config\.seed = 0 \(now 1\)"):
        build_pairs(data_dir, replace(CONFIG, seed=1))


@pytest.mark.parametrize("kind", ["uniform", "similar"])
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_every_pair_shares_its_entity_with_no_duplicate_and_repeats_with_any_threads(
    make_data: Any, tmp_path_factory: Any, monkeypatch: pytest.MonkeyPatch, kind: Any, data: st.DataObject
) -> None:
    entities = [{"a"}, *data.draw(st.lists(st.sets(st.sampled_from("abcd")), max_size=7), label="entities")]
    groups = [data.draw(st.integers(0, 3), label="group") for _ in entities]
    images = {f"{number}.jpg": sorted(each) for number, each in enumerate(entities)}
    own = {image_key(image): set(each) for image, each in images.items()}
    group_of = {image_key(image): group for image, group in zip(images, groups, strict=True) if group}
    monkeypatch.setattr(pairs, "IMAGES_PER_PART", 3)
    config = PairsConfig(kind=kind, num_partners=3, num_nearest=4, seed=data.draw(st.integers(0, 9)), sheet_entities=0)
    tables, reasons = [], []
    for threads in (1, 3):
        data_dir = _store(make_data(tmp_path_factory.mktemp("pairs"), images), images)
        pq.write_table(
            pa.table({"key": list(group_of), "group": list(group_of.values())}),
            data_dir / "images" / "duplicates.parquet",
        )
        manifest = build_pairs(data_dir, config, threads)
        tables.append(pa.concat_tables(pq.read_table(data_dir / "pairs" / part.name) for part in manifest.parts))
        reasons.append(pq.read_table(data_dir / "pairs" / "left_out.parquet"))
    assert tables[0].equals(tables[1])
    assert reasons[0].equals(reasons[1])
    number = Counter(tables[0]["key"].to_pylist())
    for row in tables[0].to_pylist():
        key, partner = row["key"], row["pair_key"]
        assert key != partner
        assert key not in group_of or group_of[key] != group_of.get(partner)
        assert row["entity"] in own[key] & own[partner]
    short = {row["key"]: row for row in reasons[0].to_pylist()}
    for key in own:
        may_be = {o for o in own if o != key and own[o] & own[key] and group_of.get(o, o) != group_of.get(key, key)}
        if kind == "uniform":
            assert number[key] == (3 if may_be else 0)
        assert (number[key] < 3) == (key in short)
        if key in short:
            assert short[key]["partners"] == number[key]
            if number[key] == 0:
                assert short[key]["reason"] == ("no other image with its entities" if own[key] else "no entity")
            else:
                assert short[key]["reason"] == "fewer images near it with its entities"


def test_similar_pairs_are_scored_and_a_cap_is_told(data_dir: Path) -> None:
    config = replace(CONFIG, kind="similar", num_partners=2, max_serves=1)
    manifest = build_pairs(data_dir, config)
    drawn = pq.read_table(data_dir / "pairs" / "part-00000.parquet")
    assert max(Counter(drawn["pair_key"].to_pylist()).values()) == 1
    assert 0.7 < drawn["score"].to_numpy().max() < 1  # a.jpg and e.jpg: "cat and sofa", and "cat"
    assert manifest.counts["images near it serve as often as max_serves allows"] > 0
    figures = json.loads((data_dir / "pairs" / "datacard.json").read_text())["figures"]
    assert figures["most pairs that one image serves in"] == 1
    assert figures["most pairs that one image would serve in without a cap"] > 1
    assert not (data_dir / "pairs" / "scratch").exists()


def test_recall_of_many_vectors_is_in_the_manifest(
    make_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(neighbours, "FLAT_MAX", 500)
    images = {f"{number}.jpg": ["cat", f"word{number % 90}", f"other{number % 77}"] for number in range(1000)}
    data_dir = _store(make_data(tmp_path, images), images)
    counts = build_pairs(data_dir, replace(CONFIG, kind="similar", min_recall=0.9)).counts
    for what in ("nearest within entities", "nearest by free search"):
        assert counts[f"{what}, found"] >= 0.9 * counts[f"{what}, sought on sampled images"] > 0


def test_pairs_follow_embeddings_where_they_are_named(data_dir: Path) -> None:
    keys = Samples(data_dir / "images").keys.tolist()
    near = {image_key(f"{name}.jpg"): angle for name, angle in zip("abcde", (0.0, 2.0, 0.4, 3.0, 0.1), strict=True)}

    def embed(samples: Samples, rows: range) -> Any:
        angles = np.array([near[key] for key in samples.keys[rows.start : rows.stop].tolist()], np.float32)
        return np.stack([np.cos(angles), np.sin(angles)], axis=1)

    config = replace(CONFIG, kind="similar", vectors="images", num_partners=1, num_nearest=1)
    with pytest.raises(FileNotFoundError, match="the stage that makes images/ is not there"):
        build_pairs(data_dir, config)
    write_embeddings(data_dir, embed, "model", EmbedConfig(of="images", images_per_part=2))
    build_pairs(data_dir, config)
    drawn = {row[0]: row[1] for row in _names(pq.read_table(data_dir / "pairs" / "part-00000.parquet"))}
    assert drawn == {"a.jpg": "e.jpg", "e.jpg": "a.jpg", "c.jpg": "e.jpg", "b.jpg": "e.jpg"}
    assert len(keys) == 5
    with pytest.raises(ValueError, match="its vectors are embeddings of images, not of words"):
        PairIndex(data_dir).similar("a cat", 1)


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"num_partners": 0}, "num_partners = 0: expected at least 1"),
        ({"kind": "nearest"}, "kind = 'nearest': expected 'uniform' or 'similar'"),
        ({"seed": -1}, "seed = -1: expected at least 0"),
        ({"word_dims": 0}, "word_dims = 0: expected at least 1"),
        ({"vectors": "clip"}, "vectors = 'clip': expected one of words, captions, images, or None"),
        ({"kind": "similar", "vectors": None}, "vectors = None: kind 'similar' needs them"),
        ({"kind": "similar", "num_nearest": 9}, r"num_nearest = 9: expected num_partners \(10\) to 200"),
        ({"max_serves": 5}, "max_serves = 5: expected None, or at least 1 with kind 'similar'"),
        ({"min_recall": 0.0}, "min_recall = 0.0: expected above 0"),
    ],
)
def test_impossible_settings_are_refused(settings_: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PairsConfig(**settings_)
