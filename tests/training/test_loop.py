import json
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from model import ModelConfig, OVSegmentor
from training.config import TrainConfig
from training.loop import Trainer, train_here
from training.phase import Phase

Make = Callable[..., TrainConfig]
Start = Callable[..., BaseProcess]
KILLED = """
import os, signal
from training.loop import train_here
from training.metrics import MetricsWriter
write = MetricsWriter.write
def write_and_die(self, line):
    write(self, line)
    if line["step"] == last_step:
        os.kill(os.getpid(), signal.SIGKILL)
MetricsWriter.write = write_and_die
train_here(phase)
"""
WORKER = """
import torch.distributed as dist
from training.loop import train_here
dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
train_here(phase)
dist.destroy_process_group()
"""


def metrics(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def without_times(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    timed = {"samples_per_s", "waited_s", "time_s", "memory_mb"}
    return [{name: value for name, value in line.items() if name not in timed} for line in lines]


@pytest.fixture(scope="module")
def phase1(
    data_dir: Path, tmp_path_factory: pytest.TempPathFactory, tiny_model: ModelConfig, tiny_config: Make
) -> Phase:
    """Return a finished phase 1."""
    phase = Phase(data_dir, tmp_path_factory.mktemp("phase1"), tiny_model, tiny_config())
    train_here(phase)
    return phase


def test_a_run_leaves_metrics_record_and_model(phase1: Phase) -> None:
    lines = metrics(phase1.run_dir)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    first = lines[0]
    expected = (
        "step",
        "epoch",
        "phase",
        "contrastive",
        "entity",
        "mask",
        "nouns",
        "words",
        "total",
        "lr",
        "samples_per_s",
        "memory_mb",
    )
    assert [name for name in first if name in expected] == list(expected)
    assert first["mask"] is None
    assert first["total"] == pytest.approx(first["contrastive"] + first["entity"] + first["nouns"], rel=1e-5)
    assert lines[-1]["epoch"] == 1
    record = json.loads((phase1.run_dir / "run.json").read_text())
    model = OVSegmentor.from_pretrained(phase1.model_dir)
    assert record["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert (record["phase"], record["seed"], record["steps"], record["skipped"]) == (1, 0, 6, 0)
    assert record["inputs"] == {"samples": "test-48"}
    assert record["train"]["batch_size"] == 8
    assert record["versions"]["torch"] == torch.__version__.partition("+")[0]


def test_a_finished_run_returns_at_once(phase1: Phase) -> None:
    before = (phase1.model_dir / "model.safetensors").stat().st_mtime_ns
    assert train_here(phase1) == phase1.model_dir
    assert (phase1.model_dir / "model.safetensors").stat().st_mtime_ns == before


def test_a_run_with_other_settings_is_refused(phase1: Phase) -> None:
    other = replace(phase1, config=replace(phase1.config, seed=7))
    with pytest.raises(ValueError, match=r"begun with train.seed = 0 \(now 7\)"):
        train_here(other)


@pytest.mark.parametrize("number", [1, 2])
def test_a_killed_and_resumed_run_ends_bit_equal(phase1: Phase, tmp_path: Path, start: Start, number: int) -> None:
    config = replace(phase1.config, phase=number)
    init_from = phase1.model_dir if number == 2 else None
    whole = Phase(phase1.data_dir, tmp_path / "whole", phase1.model, config, init_from)
    killed = replace(whole, run_dir=tmp_path / "killed")
    child = start(KILLED, phase=killed, last_step=5)
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert [path.name for path in sorted((killed.run_dir / "checkpoints").iterdir())][-1] == "step-00000004"
    assert [line["step"] for line in metrics(killed.run_dir)] == [1, 2, 3, 4, 5]
    train_here(whole)
    train_here(killed)
    for name in ("model/model.safetensors", "model/tokenizer.json"):
        assert (killed.run_dir / name).read_bytes() == (whole.run_dir / name).read_bytes()
    assert without_times(metrics(killed.run_dir)) == without_times(metrics(whole.run_dir))
    ends = [torch.load(run.run_dir / "checkpoints/step-00000006/state.pt") for run in (whole, killed)]
    assert ends[0]["model"].keys() == ends[1]["model"].keys()
    for name, value in ends[0]["model"].items():
        assert torch.equal(ends[1]["model"][name], value), name
    assert any(name.startswith("momentum_encoder.") for name in ends[0]["model"]) == (number == 2)


def test_phase_2_trains_masks_moves_the_momentum_encoder_and_leaves_the_text_tower(
    phase1: Phase, tmp_path: Path
) -> None:
    config = replace(phase1.config, phase=2, momentum=0.9)
    phase = Phase(phase1.data_dir, tmp_path, phase1.model, config, phase1.model_dir)
    trainer = Trainer(phase)
    batches = trainer.batches()
    name = "image_encoder.stem.project.0.weight"
    slow_name = name.replace("image", "momentum", 1)
    slow = trainer.model.state_dict()[slow_name].clone()
    for _ in range(3):
        assert trainer.step(batches)["mask"] is not None
        state = trainer.model.state_dict()
        slow = slow.lerp(state[name], 0.1)
        assert torch.allclose(state[slow_name], slow, atol=1e-7)
    batches.close()
    before = load_file(phase1.model_dir / "model.safetensors")
    for key, value in before.items():
        if key.startswith("text_encoder."):
            assert torch.equal(state[key], value), key
    assert not torch.equal(state[name], before[name])


def test_two_workers_train_as_one_with_the_joint_batch(phase1: Phase, tmp_path: Path, start: Start) -> None:
    model = replace(
        phase1.model,
        image=replace(phase1.model.image, gumbel=False, drop_path=0.0),
        text=replace(phase1.model.text, dropout=0.0),
    )
    for number in (1, 2):
        config = replace(phase1.config, phase=number, steps=3)
        init_from = tmp_path / "one-1" / "model" if number == 2 else None
        one = Phase(phase1.data_dir, tmp_path / f"one-{number}", model, config, init_from)
        train_here(one)
        two = replace(
            one, run_dir=tmp_path / f"two-{number}", config=replace(config, launch=replace(config.launch, workers=2))
        )
        store = tmp_path / f"store-{number}"
        workers = [start(WORKER, phase=two, rank=rank, store=store) for rank in (0, 1)]
        for worker in workers:
            worker.join()
        assert [worker.exitcode for worker in workers] == [0, 0]
        for line, joint in zip(metrics(two.run_dir), metrics(one.run_dir), strict=True):
            for name in ("contrastive", "entity", "mask", "nouns", "total", "gradient_norm"):
                close = pytest.approx(joint[name], rel=1e-3) if joint[name] is not None else None
                assert line[name] == close, (number, line["step"], name)


def test_a_loss_that_is_not_finite_stops_with_step_and_keys(
    phase1: Phase, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    losses = OVSegmentor.losses
    calls = []

    def poisoned(self: OVSegmentor, batch: Any) -> Any:
        calls.append(batch)
        found = losses(self, batch)
        return replace(found, total=found.total * float("nan")) if len(calls) == 3 else found

    monkeypatch.setattr(OVSegmentor, "forward", poisoned)
    phase = replace(phase1, run_dir=tmp_path)
    with pytest.raises(FloatingPointError, match=r"'total': nan.* at step 3, keys of worker 0: \d+, \d+"):
        train_here(phase)
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2]
    monkeypatch.undo()
    train_here(phase)
    assert (tmp_path / "model/model.safetensors").read_bytes() == (phase1.model_dir / "model.safetensors").read_bytes()


def test_undecodable_images_are_counted_in_the_record(
    tmp_path: Path, tiny_model: ModelConfig, tiny_config: Make, write_data: Callable[..., Path]
) -> None:
    data_dir = write_data(tmp_path / "data", broken=(5,))
    phase = Phase(data_dir, tmp_path / "run", tiny_model, tiny_config(max_undecodable_rate=0.05))
    train_here(phase)
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["skipped"] == 1
    assert list(record["skipped_keys"]) == [str(phase.samples().keys[5])]


def test_no_mask_is_read_in_training(
    tmp_path: Path, tiny_model: ModelConfig, tiny_config: Make, write_data: Callable[..., Path]
) -> None:
    data_dir = write_data(tmp_path / "run" / "data")
    masks = tmp_path / "run" / "scenes" / "benchmark" / "SegmentationClass"
    for folder in (masks, data_dir / "captions", data_dir / "entities"):
        folder.mkdir(parents=True)
        (folder / "0.png").write_bytes(b"a mask")
    opened: set[Path] = set()
    is_watching = True

    def watch(event: str, arguments: tuple[Any, ...]) -> None:
        if (
            is_watching
            and event in {"open", "os.listdir", "os.scandir"}
            and isinstance(arguments[0], str | os.PathLike)
        ):
            opened.add(Path(os.fsdecode(arguments[0])).absolute())

    sys.addaudithook(watch)
    try:
        model_dir = train_here(Phase(data_dir, tmp_path / "run" / "phase1", tiny_model, tiny_config()))
        phase2 = Phase(data_dir, tmp_path / "run" / "phase2", tiny_model, tiny_config(phase=2), model_dir)
        train_here(phase2)
    finally:
        is_watching = False
    inside = {path.relative_to(tmp_path / "run") for path in opened if path.is_relative_to(tmp_path / "run")}
    assert Path("data/images/00000.tar") in inside
    assert {path.parts[0] for path in inside} == {"data", "phase1", "phase2"}
    assert {path.parts[1] for path in inside if path.parts[0] == "data"} <= {"images", "pairs"}
    assert not [path for path in opened if "segmentation" in str(path).lower() or path.suffix == ".png"]
