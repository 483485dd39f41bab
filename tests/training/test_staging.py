from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import SimpleNamespace

import pytest

from curation.images import FILES, Samples
from model import ModelConfig
from training.config import TrainConfig
from training.loop import train_here
from training.phase import Phase
from training.staging import stage_images

STAGE = """
from training.staging import stage_images
from curation.images import Samples
stage_images(Samples(source), target)
"""


def test_the_copy_holds_the_same_images_and_is_made_once(data_dir: Path, tmp_path: Path) -> None:
    samples = Samples(data_dir / "images")
    copy = stage_images(samples, tmp_path)
    assert Path(copy.images_dir).parent == tmp_path
    assert copy.digest == samples.digest
    assert [copy.read(row) for row in range(len(copy))] == [samples.read(row) for row in range(len(samples))]
    assert copy.captions(3) == samples.captions(3)
    before = {file: file.stat().st_mtime_ns for file in Path(copy.images_dir).iterdir() if file.name != ".lock"}
    stage_images(samples, tmp_path)
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_a_copy_that_was_cut_short_is_completed(data_dir: Path, tmp_path: Path) -> None:
    samples = Samples(data_dir / "images")
    folder = tmp_path / samples.digest
    folder.mkdir()
    (folder / ".00000.tar.tmp").write_bytes(b"half")
    assert stage_images(samples, tmp_path).read(0) == samples.read(0)


def test_workers_of_a_node_share_one_copy(data_dir: Path, tmp_path: Path, start: Callable[..., BaseProcess]) -> None:
    workers = [start(STAGE, source=data_dir / "images", target=tmp_path) for _ in range(3)]
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir()] == [Samples(data_dir / "images").digest]


def test_a_disk_that_is_too_small_and_images_left_in_place_are_told(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = Samples(data_dir / "images")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=5))
        with pytest.raises(OSError, match=r"GB of images to copy, 0\.0 GB free; choose a larger disk, or set"):
            stage_images(samples, tmp_path)
    shutil.copytree(data_dir / "images", tmp_path / "images")
    (tmp_path / "images" / FILES).symlink_to(tmp_path)
    with pytest.raises(ValueError, match="holds no shards, its images were left where they lie"):
        stage_images(Samples(tmp_path / "images"), tmp_path)


def test_training_from_the_copy_gives_the_same_weights(
    data_dir: Path, tmp_path: Path, tiny_model: ModelConfig, tiny_config: Callable[..., TrainConfig]
) -> None:
    config = tiny_config(steps=2)
    staged = replace(config, launch=replace(config.launch, stage_dir=str(tmp_path / "disk")))
    weights = []
    for name, each in (("there", config), ("here", staged)):
        model = train_here(Phase(data_dir, tmp_path / name, tiny_model, each))
        weights.append((model / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]
    assert len(list((tmp_path / "disk").iterdir())) == 1
