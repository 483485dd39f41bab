"""The embed stage on stored pictures, killed half-way, and pairs drawn by what it wrote."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from curation.embeddings import EmbedConfig, read_embeddings
from curation.images import shard_name, write_samples
from curation.manifest import close_stage, open_stage, write_part
from curation.pair_index import PairIndex
from curation.pairs import PairsConfig, build_pairs
from curation.schema import POSTINGS, SAMPLES, part_name
from flows import cli
from flows.embed import embed
from model.embed import Embedder

COLOURS = ["red", "green", "blue", "white"]


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Return a data folder of twelve cats in four colours; the bytes of the last image are none."""
    shard, rows = b"", []
    for key in range(12):
        file = io.BytesIO()
        Image.new("RGB", (32, 32), COLOURS[key % 4]).save(file, "PNG")
        content = file.getvalue() if key < 11 else b"no image"
        captions = [{"text": f"a {COLOURS[key % 4]} cat", "mentions": []}]
        rows.append({"key": key, "shard": 0, "offset": len(shard), "length": len(content), "captions": captions})
        shard += content
    open_stage(tmp_path / "images", "download", {}, {})
    (tmp_path / "images" / shard_name(0)).write_bytes(shard)
    write_samples(tmp_path / "images", [pa.Table.from_pylist(rows, schema=SAMPLES)], "digest")
    close_stage(tmp_path / "images", [])
    open_stage(tmp_path / "postings", "postings", {}, {})
    postings = pa.table([["cat"] * 12, list(range(12)), [0] * 12, list(range(12))], schema=POSTINGS)
    close_stage(tmp_path / "postings", [write_part(tmp_path / "postings", part_name(0), postings)])
    return tmp_path


@pytest.mark.parametrize("of", ["captions", "images"])
def test_equal_captions_and_images_become_partners(data_dir: Path, model_dir: Path, of: Any) -> None:
    manifest = embed.fn(data_dir, model_dir, EmbedConfig(of=of, images_per_part=5), "cpu", batch_size=2)
    assert [part.rows for part in manifest.parts] == [5, 5, 2]
    assert manifest.counts == {"no vector": 1 if of == "images" else 0}
    vectors = np.concatenate(list(read_embeddings(data_dir, of)))
    assert vectors.shape == (12, 12)
    config = PairsConfig(kind="similar", vectors=of, num_partners=2, num_nearest=2, sheet_entities=0)
    build_pairs(data_dir, config)
    index = PairIndex(data_dir)
    for key in range(8):
        same = {other for other in range(12) if other % 4 == key % 4 and other != key} - {11}
        if len(same) == 2:
            assert set(index.partners(key)["pair_key"].to_pylist()) == same


def test_a_killed_stage_goes_on_and_another_model_is_refused(
    data_dir: Path, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, calls = Embedder.captions, []

    def counted(self: Embedder, captions: Any) -> Any:
        calls.append(len(captions))
        if len(calls) == 2:
            raise KeyboardInterrupt
        return whole(self, captions)

    monkeypatch.setattr(Embedder, "captions", counted)
    config = EmbedConfig(images_per_part=5)
    with pytest.raises(KeyboardInterrupt):
        embed.fn(data_dir, model_dir, config, "cpu")
    embed.fn(data_dir, model_dir, config, "cpu")
    assert calls == [5, 5, 5, 2]
    (model_dir / "model.safetensors").rename(model_dir / "kept")
    with pytest.raises(ValueError, match="found no model"):
        embed.fn(data_dir, model_dir, config, "cpu")


def test_the_command_line_embeds_and_draws(data_dir: Path, model_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["embed", str(data_dir), str(model_dir), "--device", "cpu"]) == 0
    assert "12  images" in capsys.readouterr().out
    settings = ["kind=similar", "vectors=captions", "num_partners=2", "num_nearest=3", "sheet_entities=0"]
    arguments = [word for setting in settings for word in ("--set", setting)]
    assert cli.main(["pairs", str(data_dir), *arguments]) == 0
    assert "12  images with partners" in capsys.readouterr().out
