from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.embeddings import EmbedConfig, read_embeddings, write_embeddings
from curation.images import Samples, write_samples
from curation.manifest import close_stage, mark_part, open_stage
from curation.schema import SAMPLES


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return a data folder of seven images with a caption each."""
    open_stage(tmp_path / "images", "download", {}, {})
    rows = [{"key": key, "captions": [{"text": f"{key}", "mentions": []}]} for key in range(10, 17)]
    write_samples(tmp_path / "images", [pa.Table.from_pylist(rows, schema=SAMPLES)], "digest")
    close_stage(tmp_path / "images", [])
    return tmp_path


class Embedder:
    """Gives key and 1, counts its rows, and dies at one row."""

    def __init__(self, dies_at: int | None = None) -> None:
        self.rows: list[int] = []
        self.dies_at = dies_at

    def __call__(self, samples: Samples, rows: range) -> Any:
        if self.dies_at in rows:
            raise RuntimeError("killed")
        self.rows += rows
        return np.stack([samples.keys[rows.start : rows.stop], np.ones(len(rows))], axis=1).astype(np.float32)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_vectors_are_kept_by_key_in_the_order_of_samples(data_dir: Path, dtype: Any) -> None:
    manifest = write_embeddings(data_dir, Embedder(), "model", EmbedConfig(dtype=dtype, images_per_part=3))
    folder = data_dir / "embeddings" / "captions"
    tables = [pq.read_table(folder / part.name) for part in manifest.parts]
    assert [len(table) for table in tables] == [3, 3, 1]
    value = pa.float16() if dtype == "float16" else pa.float32()
    assert tables[0].schema.field("vector").type == pa.list_(value, 2)
    assert pa.concat_tables(tables)["key"].to_pylist() == list(range(10, 17))
    vectors = np.concatenate(list(read_embeddings(data_dir, "captions")))
    assert vectors.tolist() == [[key, 1] for key in range(10, 17)]


def test_a_killed_stage_goes_on_with_the_parts_that_are_left(data_dir: Path) -> None:
    config = EmbedConfig(images_per_part=2)
    with pytest.raises(RuntimeError, match="killed"):
        write_embeddings(data_dir, Embedder(dies_at=5), "model", config)
    again = Embedder()
    manifest = write_embeddings(data_dir, again, "model", config)
    assert again.rows == [4, 5, 6]
    assert write_embeddings(data_dir, Embedder(dies_at=0), "model", config) == manifest
    with pytest.raises(ValueError, match=r"inputs\.model = 'model' \(now 'other'\)"):
        write_embeddings(data_dir, Embedder(), "other", config)


def test_images_without_a_vector_are_counted(data_dir: Path) -> None:
    def embed(_: Samples, rows: range) -> Any:
        return np.array([[row != 3, 0] for row in rows], np.float32)

    assert write_embeddings(data_dir, embed, "model", EmbedConfig(of="images")).counts == {"no vector": 1}


def test_embeddings_of_other_images_are_refused(data_dir: Path) -> None:
    write_embeddings(data_dir, Embedder(), "model")
    for name in ("started.json", "manifest.json"):
        (data_dir / "images" / name).unlink()
    open_stage(data_dir / "images", "download", {}, {})
    (data_dir / "images" / "00000.tar").write_bytes(b"other")
    close_stage(data_dir / "images", [mark_part(data_dir / "images", "00000.tar", 1)])
    with pytest.raises(ValueError, match="made of images with digest"):
        next(read_embeddings(data_dir, "captions"))
    with pytest.raises(FileNotFoundError, match="the stage that makes images/ is not there"):
        next(read_embeddings(data_dir, "images"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"of": "sounds"}, "of = 'sounds': expected 'captions' or 'images'"),
        ({"dtype": "int8"}, "dtype = 'int8': expected 'float16' or 'float32'"),
        ({"images_per_part": 0}, "images_per_part = 0: expected at least 1"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EmbedConfig(**settings)
