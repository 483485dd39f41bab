"""What a training step, the loader and evaluation do on a GPU, in one run of about ten minutes: `make bench-gpu`.

Needs torch, timm, transformers and pyarrow; no Ray, Prefect, spaCy or pydantic. Weights are random and images are
noise: they do not change the time. `--tiny` runs every line in seconds on any device; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torch._dynamo
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode
from transformers import BertConfig

from evaluation import Protocol, Segmenter
from model import ImageConfig, ModelConfig, OVSegmentor, PaperSegmentor, TextConfig, learn_wordpiece
from tests.benchmarks.model import WIDTHS, captions, make_batch
from tests.benchmarks.photographs import stored_photographs
from tests.model.test_paper import OURS, fixture, load
from tests.model.test_paper import batch as parity_batch
from training.build import entities_named
from training.config import AugmentConfig, OptimConfig, TrainConfig
from training.data import TrainingSet, read_chunks
from training.entity_masking import NounPrompts
from training.metrics import peak_memory_mb
from training.optim import apply_gradients, build_optimizer
from training.transforms import build_transform

PARITY_BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 5e-2}
"""largest difference from the release's losses, relative; float32 without TF32"""
DRIFT_BOUND = 0.05
"""largest relative difference of the mean loss of the last ten of equal steps in bfloat16 from float32's"""


@dataclass(frozen=True)
class Scale:
    """How much is measured."""

    batch: int
    """images of a step"""
    warm_up: int
    """steps before the clock runs; compilation falls into them"""
    window: int
    """steps of a timed window"""
    windows: int
    """timed windows, of which the median counts"""
    equal_steps: int
    """steps after which the modes' losses are compared"""
    flat_steps: int
    """steps over which memory must stay flat"""
    matrix: int
    """side of the square matrices whose product gives the machine's rate"""


FULL = Scale(batch=256, warm_up=8, window=10, windows=5, equal_steps=100, flat_steps=1000, matrix=8192)
TINY = Scale(batch=8, warm_up=1, window=1, windows=3, equal_steps=2, flat_steps=3, matrix=256)


@dataclass(frozen=True)
class Mode:
    """A way to take steps."""

    name: str
    """for the table"""
    kind: type[OVSegmentor]
    """default or published behaviour"""
    precision: torch.dtype
    """of matrix products"""
    compiled: bool = False
    """whether the transformer blocks are compiled"""


PAPER = Mode("paper, float32", PaperSegmentor, torch.float32)
MODES = (
    PAPER,
    Mode("default, float32", OVSegmentor, torch.float32),
    Mode("default, bfloat16", OVSegmentor, torch.bfloat16),
    Mode("default, bfloat16, compiled", OVSegmentor, torch.bfloat16, compiled=True),
)
DEFAULT = MODES[-1]


class Stepper:
    """A model with its optimiser that takes steps on one batch, as the training loop does."""

    def __init__(self, size: str, phase: int, mode: Mode, scale: Scale, device: torch.device) -> None:
        torch.manual_seed(0)
        self.mode, self.phase, self.device = mode, phase, device
        self.model = _model(size, mode.kind, tiny=scale is TINY).to(device).train()
        if phase == 2:
            self.model.start_momentum()
            self.model.freeze_text()
        if mode.compiled:
            self.model.compile_blocks()
        self.optimizer = build_optimizer(self.model, OptimConfig(lr=1e-4))
        self.batch = make_batch(self.model, scale.batch, phase).to(device)

    def autocast(self) -> AbstractContextManager[object]:
        """Return the context of a forward pass."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mode.precision == torch.bfloat16)

    def gradients(self) -> torch.Tensor:
        """Go forward and backward; return the loss."""
        with self.autocast():
            total: torch.Tensor = self.model.losses(self.batch).total
        total.backward()  # type: ignore[no-untyped-call]
        return total.detach()

    def step(self) -> torch.Tensor:
        """Take a step; return the loss."""
        total = self.gradients()
        apply_gradients(self.optimizer, 1e-4, 5.0)
        if self.phase == 2:
            self.model.update_momentum(0.99)
        return total


def _model(size: str, kind: type[OVSegmentor], tiny: bool) -> OVSegmentor:
    width, num_heads = WIDTHS[size]
    image, text = ImageConfig(width=width, num_heads=num_heads), BertConfig(vocab_size=30522)
    if tiny:
        image = replace(image, image_size=64, width=32, num_heads=2, depths=(1, 1))
        text = BertConfig(vocab_size=2000, hidden_size=32, num_hidden_layers=1, num_attention_heads=2)
    return kind(ModelConfig(image=image, text=TextConfig()), _tokenizer(2000 if tiny else 8000), text)


@cache
def _tokenizer(size: int) -> Any:
    return learn_wordpiece(captions(), size)


def wait(device: torch.device) -> None:
    """Wait until the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed_s(do: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Return the seconds of one call, out of several without a wait between them."""
    wait(device)
    begun = time.perf_counter()
    for _ in range(repeats):
        do()
    wait(device)
    return (time.perf_counter() - begun) / repeats


def matrix_rate(scale: Scale, device: torch.device, precision: torch.dtype) -> float:
    """Return the FLOPs per second of a large matrix product in this precision: what a step is held against."""
    left, right = torch.randn(2, scale.matrix, scale.matrix, device=device, dtype=precision)
    seconds = [timed_s(lambda: left @ right, 5, device) for _ in range(4)][1:]
    return float(2 * scale.matrix**3 / statistics.median(seconds))


def parity(scale: Scale, device: torch.device) -> Iterator[list[str]]:
    """Losses of the release's fixture on this device, within stated bounds."""
    del scale
    expected = fixture()[0]["losses"]["evalmode"]
    for precision, bound in PARITY_BOUNDS.items():
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == torch.bfloat16):
            losses = load().to(device).eval().losses(parity_batch().to(device))
        worst = max(abs(getattr(losses, OURS[name]).item() / value - 1) for name, value in expected.items())
        verdict = "within" if worst <= bound else "NOT WITHIN"
        yield [f"parity with the release, {_name(precision)}", f"{worst:.1e} off", f"{verdict} {bound:.0e}", ""]


def steps(scale: Scale, device: torch.device) -> Iterator[list[str]]:
    """Images per second of a whole step, memory, utilisation, against the published behaviour in float32."""
    rates = {precision: matrix_rate(scale, device, precision) for precision in PARITY_BOUNDS}
    for precision, rate in rates.items():
        yield [f"matrix product of {scale.matrix}, {_name(precision)}", f"{rate / 1e12:,.1f} TFLOP/s", "", ""]
    for size, phase in (("ViT-B", 1), ("ViT-B", 2), ("ViT-S", 1), ("ViT-S", 2)):
        paper_s = math.nan
        for mode in MODES if (size, phase) == ("ViT-B", 1) else (PAPER, DEFAULT):
            _forget(device)
            stepper = Stepper(size, phase, mode, scale, device)
            with FlopCounterMode(display=False) as counter:
                stepper.gradients()  # compiled blocks are counted before they are compiled: the counter sees through
            for _ in range(scale.warm_up):
                stepper.step()
            compiled = _recompilations()
            step_s = statistics.median(timed_s(stepper.step, scale.window, device) for _ in range(scale.windows))
            paper_s = step_s if mode is PAPER else paper_s
            utilisation = counter.get_total_flops() / step_s / rates[mode.precision]
            yield [
                f"{size}, phase {phase}, batch {scale.batch}, {mode.name}",
                f"{scale.batch / step_s:,.0f} images/s, {peak_memory_mb(device) / 1000:.1f} GB",
                f"{utilisation:.0%} of the matrix rate; {_recompilations() - compiled} recompilations",
                f"{paper_s / step_s:.2f}",
            ]
            if mode is DEFAULT:
                yield from _where_time_goes(f"{size}, phase {phase}", stepper)


def _where_time_goes(what: str, stepper: Stepper) -> Iterator[list[str]]:
    """Yield the kernels that cost most, and how long the device was idle in a step."""
    device = stepper.device
    on_gpu = device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if on_gpu else [])]
    with profile(activities=activities) as profiler:
        step_s = timed_s(stepper.step, 1, device)
    name = "self_device_time_total" if on_gpu else "self_cpu_time_total"
    # An operation is listed beside the kernels that it launches: kernels alone count, or their time would count twice.
    events = [e for e in profiler.key_averages() if not on_gpu or e.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda event: -getattr(event, name))
    total_us = sum(getattr(event, name) for event in events)
    shares = "; ".join(f"{event.key[:60]} {getattr(event, name) / total_us:.0%}" for event in events[:12])
    yield [f"{what}: busy", f"{total_us / 1e6 / step_s:.0%} of a profiled step", shares, ""]
    waits = {event.key: event.count for event in profiler.key_averages() if "Synchronize" in event.key}
    yield [f"{what}: waits of the host in a step", str(sum(waits.values())), str(waits or "none"), ""]


def drift(scale: Scale, device: torch.device) -> Iterator[list[str]]:
    """Losses after equal steps in each mode of the default, and memory over many."""
    reference = math.nan
    for mode in MODES[1:]:
        _forget(device)
        stepper = Stepper("ViT-S", 1, mode, scale, device)
        losses = torch.stack([stepper.step() for _ in range(scale.equal_steps)])[-10:].mean().item()
        reference = losses if math.isnan(reference) else reference
        off = abs(losses / reference - 1)
        verdict = "within" if off <= DRIFT_BOUND else "NOT WITHIN"
        yield [f"loss after {scale.equal_steps} steps, {mode.name}", f"{losses:.4f}", f"{verdict} {DRIFT_BOUND}", ""]
    before_mb = peak_memory_mb(device)
    for _ in range(scale.flat_steps):
        stepper.step()
    wait(device)
    after_mb = peak_memory_mb(device)
    what = f"peak memory before and after {scale.flat_steps:,} more steps"
    yield [what, f"{after_mb:,.0f} MB", f"{before_mb:,.0f} MB", f"{after_mb / before_mb:.3f}"]


def loader(scale: Scale, device: torch.device) -> Iterator[list[str]]:
    """Images per second from samples.arrow by the number of loader processes: how many a GPU needs."""
    del device
    with tempfile.TemporaryDirectory() as folder:
        samples, _ = stored_photographs(Path(folder))
        nouns = NounPrompts(entities_named(samples), TrainConfig().prompts)
        for kind in ("deit", "crop"):
            for workers in (1, 2) if scale is TINY else (1, 2, 4, 8, 16):
                config = TrainConfig(augment=AugmentConfig(kind, (0.08, 1.0)), loader_workers=workers)
                transform = build_transform(config.augment, 224)
                dataset = TrainingSet(samples, None, transform, nouns, "[MASK]", config)
                chunks = read_chunks(dataset, 0, scale.batch, 1, {})
                for _ in range(workers):  # each process has started when each has given a batch
                    next(chunks)
                count, begun = 2 * max(4, workers), time.perf_counter()
                for _ in range(count):
                    next(chunks)
                rate = count * scale.batch / (time.perf_counter() - begun)
                yield [f"loader, augmentation {kind}", f"{rate:,.0f} images/s", f"{workers} processes", ""]


@torch.inference_mode()
def evaluation(scale: Scale, device: torch.device) -> Iterator[list[str]]:
    """Images labelled per second, windows of several images together, against the published protocol one by one."""
    side, count = (64, 2) if scale is TINY else (448, 32)
    windows = Protocol(shorter_side=side, longest_side=4 * side, window=side, stride=side // 2)
    images = list(torch.randint(0, 256, (count, 3, side, side * 4 // 3), dtype=torch.uint8))
    vectors = torch.randn(20, 256, device=device)
    for size in WIDTHS:
        ours, paper = (_model(size, kind, scale is TINY).to(device) for kind in (OVSegmentor, PaperSegmentor))
        segmenter = Segmenter(ours, vectors, windows, has_background=True)
        published = Segmenter(paper, vectors, Protocol.paper(), has_background=True)

        def label(segmenter: Segmenter) -> None:
            for regions in segmenter.regions(images):
                segmenter.label(regions)

        def label_one_by_one(published: Segmenter) -> None:
            for image_CHW in images:
                published.model.encode_image(torch.rand(1, 3, side, side, device=device))  # the release looks twice
                published.segment(image_CHW[None].to(device))

        label(segmenter), label_one_by_one(published)
        ours_s = timed_s(partial(label, segmenter), 3, device)
        paper_s = timed_s(partial(label_one_by_one, published), 1, device)
        figures = f"{count / ours_s:,.0f} images/s", f"release, one by one: {count / paper_s:,.0f} images/s"
        yield [f"{size}, evaluation at {side} px, float32", *figures, f"{paper_s / ours_s:.2f}"]


def _name(precision: torch.dtype) -> str:
    return str(precision).removeprefix("torch.")


def _recompilations() -> int:
    return int(torch._dynamo.utils.counters["stats"]["unique_graphs"])


def _forget(device: torch.device) -> None:
    torch._dynamo.reset()
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


PARTS = {part.__name__: part for part in (parity, steps, drift, loader, evaluation)}


def main() -> None:
    """Run the parts named, all by default, and print their figures as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)} (default: all)")
    parser.add_argument("--device", default="cuda", help="torch's name of the device (default cuda)")
    parser.add_argument("--tiny", action="store_true", help="sizes at which every line runs in seconds on a CPU")
    parser.add_argument("--out", type=Path, help="JSON file of the rows too, written after each part")
    options = parser.parse_args()
    device, scale = torch.device(options.device), TINY if options.tiny else FULL
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("bench-gpu: torch sees no GPU here; --device cpu --tiny shows that every line runs")
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    what = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"{what}, torch {torch.__version__}\n\n| what | figure | against | ratio |\n| --- | --- | --- | --- |")
    rows = []
    for name in options.parts or PARTS:
        for row in PARTS[name](scale, device):
            rows.append(row)
            print(f"| {' | '.join(row)} |", flush=True)
        if options.out:
            options.out.write_text(json.dumps({"device": what, "torch": torch.__version__, "rows": rows}, indent=2))


if __name__ == "__main__":
    main()
