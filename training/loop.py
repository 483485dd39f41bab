"""The loop over the steps of a phase, in this process or in this and its peers under torch.distributed.

Killed at any time and started again, it goes on from its newest checkpoint and ends, on CPU, with the weights of an
undisturbed run bit for bit.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from model import Batch, Losses, OVSegmentor
from model.workers import num_workers, worker_rank
from training import state
from training.accumulate import average_gradients, backward_in_parts
from training.batch import build_batch, with_positives
from training.build import entities_named, start_model
from training.data import Chunk, TrainingSet, prefetched, read_chunks, seed_of
from training.entity_masking import NounPrompts
from training.metrics import MetricsWriter, last_losses, peak_memory_mb
from training.optim import apply_gradients, build_optimizer, learning_rate
from training.phase import Phase
from training.record import card_facts, run_record
from training.staging import stage_images
from training.transforms import build_transform
from training.validation import Validation
from training.word_masking import WordMasking
from training.workers import from_all, mean_losses, wait_for_all

Report = Callable[[dict[str, Any], Path], None]
"""Called on every worker after each checkpoint, with the step's metrics and the checkpoint's folder."""


def train_here(phase: Phase, report: Report | None = None) -> Path:
    """Train the phase and return its model's folder. Resumes by itself; a finished run returns at once.

    Raises:
        ValueError: a folder begun with other settings, or inputs that do not fit each other.
        RuntimeError: too many undecodable images, or another process trains in the folder.
        FloatingPointError: a loss or gradient that is not finite, with step and keys.
    """
    torch.set_num_threads(phase.config.launch.threads)
    with ExitStack() as stack:
        if worker_rank() == 0:
            stack.enter_context(state.run_lock(phase.run_dir))
            phase.begin()
        wait_for_all()
        if not phase.is_finished():
            _train(Trainer(phase), report)
        wait_for_all()
    return phase.model_dir


def _train(trainer: Trainer, report: Report | None) -> None:
    config, progress = trainer.config, trainer.progress
    with ExitStack() as stack:
        metrics = None
        if worker_rank() == 0:
            metrics = stack.enter_context(MetricsWriter(trainer.phase.run_dir, progress.step, config))
        batches = stack.enter_context(closing(trainer.batches()))
        while progress.step < config.steps:
            line = trainer.step(batches) | trainer.validate()
            if metrics is not None:
                metrics.write(line)
            if progress.step % config.checkpoint_every == 0 or progress.step == config.steps:
                if metrics is not None:
                    metrics.sync()
                checkpoint = trainer.save()
                if report is not None:
                    report(line, checkpoint)
    trainer.finish()


@dataclass
class Progress:
    """Where a worker stands."""

    place: int
    """next place in the stream of examples"""
    step: int = 0
    """finished steps"""
    undecodable: dict[int, str] = field(default_factory=dict)
    """keys that could not be decoded -> reason"""
    train_time_s: float = 0.0
    """seconds spent in steps, over all starts"""


class Trainer:
    """Model, optimiser, data and progress of a phase on one worker, as the newest checkpoint left them."""

    def __init__(self, phase: Phase) -> None:
        self.phase, self.config = phase, phase.config
        self.device = torch.device("cuda" if self.config.launch.use_gpu else "cpu")
        samples = phase.samples()
        if self.config.launch.stage_dir is not None:
            samples = stage_images(samples, Path(self.config.launch.stage_dir))
        self.model = start_model(phase, samples).to(self.device)
        self.optimizer = build_optimizer(self.model, self.config.optim)
        self.progress = Progress(place=worker_rank())
        self._resume()
        self.model.train()
        if self.config.compute.recompute:
            self.model.recompute_activations()
        if self.config.compute.compile:
            self.model.compile_blocks()
        self.objective: nn.Module = self.model
        if num_workers() > 1 and self.config.compute.accumulate == 1:
            # A group of its own: DDP's reductions run beside the model's gathers and must not be matched with them.
            self.objective = DistributedDataParallel(self.model, process_group=dist.new_group())
        validation = self.config.validation
        self.validation = None if validation is None else Validation(validation, phase.run_dir)
        self.nouns = NounPrompts(entities_named(samples), self.config.prompts)
        self.dataset = TrainingSet(
            samples,
            phase.partners(samples),
            build_transform(self.config.augment, phase.model.image.image_size),
            self.nouns,
            self.model.tokenizer.mask_token,
            self.config,
        )

    def batches(self) -> Generator[tuple[Chunk, Batch], None, None]:
        """Yield the batches of this worker from its place on, made ahead by a thread."""
        size = self.config.batch_size // num_workers()
        chunks = read_chunks(self.dataset, self.progress.place, size, num_workers(), self.progress.undecodable)
        prompts = self.model.tokenize(self.nouns.prompts) if self.phase.model.loss.nouns > 0 else None
        tokenize, loss = self.model.tokenize, self.phase.model.loss
        mask_words = WordMasking.of(self.model.tokenizer) if loss.words > 0 else None
        yield from prefetched((chunk, build_batch(chunk, prompts, tokenize, loss, mask_words)) for chunk in chunks)

    def step(self, batches: Iterator[tuple[Chunk, Batch]]) -> dict[str, Any]:
        """Take one optimiser step on the next batch; return its line of metrics.

        Raises: FloatingPointError when loss or gradient is not finite; no checkpoint knows of such a step.
        """
        progress, config = self.progress, self.config
        started = time.monotonic()
        chunk, batch = next(batches)
        waited_s = time.monotonic() - started
        batch = batch.to(self.device)
        if self.phase.model.loss.share_positives:
            batch = with_positives(batch, chunk.words)
        keys = ", ".join(str(word.key) for word in chunk.words)
        where = f"step {progress.step + 1}, keys of worker {worker_rank()}: {keys}"
        torch.manual_seed(seed_of(config.seed, config.phase, progress.step, worker_rank(), "noise"))
        try:
            losses = self._backward(batch)
        except Exception as error:
            error.add_note(where)
            raise
        lr = learning_rate(progress.step, config.steps, config.optim)
        norm = float(apply_gradients(self.optimizer, lr, config.optim.clip_norm))
        values = mean_losses(losses)
        if not math.isfinite(norm) or not math.isfinite(values["total"] or 0.0):
            raise FloatingPointError(f"losses {values} with gradient norm {norm} at {where}")
        if config.phase == 2:
            self.model.update_momentum(config.momentum)
        step_s = time.monotonic() - started
        progress.step += 1
        progress.place = chunk.words[-1].place + num_workers()
        progress.undecodable |= chunk.undecodable
        progress.train_time_s += step_s
        return {
            "step": progress.step,
            "epoch": progress.place / len(self.dataset),
            "phase": config.phase,
            **values,
            "lr": lr,
            "gradient_norm": norm,
            "samples_per_s": config.batch_size / step_s,
            "waited_s": waited_s,
            "time_s": progress.train_time_s,
            "memory_mb": peak_memory_mb(self.device),
        }

    def _backward(self, batch: Batch) -> Losses:
        """Add the gradients of the joint batch of all workers to the parameters; return the losses."""
        compute = self.config.compute
        is_half, in_parts = compute.precision == "bfloat16", compute.accumulate > 1
        # In parts, a weight that was cast without gradient in the first pass must not come back in the second.
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=is_half, cache_enabled=not in_parts)
        if in_parts:
            with autocast:
                losses = backward_in_parts(self.model, batch, compute.accumulate)
            average_gradients(self.model)
            return losses
        with autocast:
            whole: Losses = self.objective(batch)
        whole.total.backward()  # type: ignore[no-untyped-call]
        return whole

    def validate(self) -> dict[str, float]:
        """Return the model's zero-shot mIoU as a metric where it is due, on the first worker; the others wait."""
        step, found = self.progress.step, dict[str, float]()
        if self.validation is None or not self.validation.is_due(step, self.config.steps):
            return found
        if worker_rank() == 0:
            found["validation_miou"] = self.validation.measure(self.model, step)
        wait_for_all()
        return found

    def save(self) -> Path:
        """Write a checkpoint; return its folder."""
        everyone = from_all(self.progress.__dict__)
        if worker_rank() == 0:
            content = {
                "workers": everyone,
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
            }
            state.save_checkpoint(self.phase.run_dir, self.progress.step, content)
        wait_for_all()
        return state.list_checkpoints(self.phase.run_dir)[-1]

    def finish(self) -> None:
        """Write the model and then the run's record."""
        undecodable = {key: reason for found in from_all(self.progress.undecodable) for key, reason in found.items()}
        if worker_rank() == 0:
            progress = self.progress
            record = run_record(self.phase.settings(), self.model, progress.step, undecodable, progress.train_time_s)
            record["validation"] = None if self.validation is None else self.validation.record()
            facts = card_facts(record, len(self.dataset), last_losses(self.phase.run_dir))
            model = self.model
            if self.validation is not None and self.validation.config.keep == "best":
                model = OVSegmentor.from_pretrained(self.validation.best_dir)
            with state.writing_folder(self.phase.model_dir) as folder:
                model.save_pretrained(folder, facts)
            state.write_json(self.phase.run_dir / state.RUN, record)

    def _resume(self) -> None:
        checkpoint = state.load_checkpoint(self.phase.run_dir, self.device)
        if checkpoint is None:
            return
        self.model.load_state_dict(checkpoint["model"])
        self.optimizer.load_state_dict(checkpoint["optimizer"])
        self.progress = Progress(**checkpoint["workers"][worker_rank()])
