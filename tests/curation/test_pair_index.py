from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from curation import neighbours
from curation.images import Partners, Samples, write_samples
from curation.manifest import close_stage, open_stage
from curation.pair_index import PairIndex
from curation.pairs import PairsConfig, build_pairs
from curation.schema import SAMPLES, image_key

CONFIG = PairsConfig(num_partners=4, word_dims=64, sheet_entities=0)
IMAGES = {"a": ["cat", "sofa"], "b": ["cat"], "c": ["sofa", "dog"], "d": ["zebra"], "e": ["cat", "sofa"]}


@pytest.fixture
def data_dir(make_data: Any, tmp_path: Path) -> Path:
    """Return a data folder with stored images whose caption is the names of their entities."""
    return _store(make_data(tmp_path / "data", IMAGES), IMAGES)


def _store(data_dir: Path, images: dict[str, list[str]]) -> Path:
    rows = [
        {"key": image_key(image), "captions": [{"text": " and ".join(entities), "mentions": []}]}
        for image, entities in images.items()
    ]
    open_stage(data_dir / "images", "download", {}, {})
    table = pa.Table.from_pylist(sorted(rows, key=lambda row: row["key"]), schema=SAMPLES)
    write_samples(data_dir / "images", [table], "digest")
    close_stage(data_dir / "images", [])
    return data_dir


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


def test_similar_images_come_by_key_caption_and_vector(data_dir: Path) -> None:
    build_pairs(data_dir, CONFIG)
    index = PairIndex(data_dir)
    found = index.similar(image_key("e"), 2)
    assert found["key"].to_pylist()[0] == image_key("a")
    assert found["score"].to_pylist() == sorted(found["score"].to_pylist(), reverse=True)
    assert found["score"].to_pylist()[0] == pytest.approx(1, abs=0.01)
    assert set(index.similar(image_key("e"), 9)["key"].to_pylist()) == {image_key(name) for name in "abcd"}
    assert set(index.similar("a zebra!", 1)["key"].to_pylist()) == {image_key("d")}
    assert set(index.similar("Cat and sofa", 2)["key"].to_pylist()) == {image_key("a"), image_key("e")}
    vector = np.load(data_dir / "pairs" / "vectors.npy")[Samples(data_dir / "images").position(image_key("d"))]
    assert index.similar(vector / 7, 1)["key"].to_pylist() == [image_key("d")]
    assert len(index.similar(np.ones(64), 50)) == 5


def test_an_entity_keeps_the_search_to_its_images(data_dir: Path) -> None:
    build_pairs(data_dir, CONFIG)
    index = PairIndex(data_dir)
    assert set(index.similar(image_key("e"), 9, "sofa")["key"].to_pylist()) == {image_key("a"), image_key("c")}
    assert set(index.similar("a zebra", 9, "sofa")["key"].to_pylist()) == {image_key(name) for name in "ace"}
    with pytest.raises(ValueError, match="entity 'cow' is unknown; known: cat, dog, sofa, zebra"):
        index.similar(image_key("e"), 2, entity="cow")


def test_a_free_search_by_codes_finds_what_a_full_one_finds(
    make_data: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = {f"{number}": ["cat", f"word{number % 97}", f"other{number % 89}"] for number in range(1200)}
    found = []
    for flat_max in (500, 5000):
        monkeypatch.setattr(neighbours, "FLAT_MAX", flat_max)
        data_dir = _store(make_data(tmp_path / str(flat_max), images), images)
        build_pairs(data_dir, CONFIG)
        assert (data_dir / "pairs" / "codes.faiss").exists() == (flat_max == 500)
        index = PairIndex(data_dir)
        found.append([index.similar(image_key(str(number)), 3)["score"].to_pylist() for number in range(0, 1200, 40)])
    assert np.mean(np.array(found[0]) >= np.array(found[1]) - 1e-6) > 0.9


def test_what_cannot_be_searched_says_so(data_dir: Path) -> None:
    build_pairs(data_dir, CONFIG)
    with pytest.raises(ValueError, match=r"a vector of shape \(3,\): expected \(64,\)"):
        PairIndex(data_dir).similar(np.ones(3), 1)
    with pytest.raises(KeyError, match="key 1: no such image"):
        PairIndex(data_dir).similar(1, 1)


def test_without_vectors_similar_says_so(data_dir: Path) -> None:
    build_pairs(data_dir, PairsConfig(vectors=None, sheet_entities=0))
    with pytest.raises(FileNotFoundError, match=r"vectors\.npy: not there, since pairs/ was made with vectors = None"):
        PairIndex(data_dir).similar(image_key("a"), 1)
