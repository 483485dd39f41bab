"""Settings of a training phase. They check themselves; the whole config is stored in the run's run.json."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from evaluation.benchmarks import Split
from evaluation.config import Protocol


@dataclass(frozen=True)
class AugmentConfig:
    """How an image is varied before the model sees it."""

    kind: Literal["deit", "crop", "flip"] = "crop"
    """deit: timm's RandAugment recipe; crop: random resized crop and flip; flip: flip only"""
    crop_scale: tuple[float, float] = (0.4, 1.0)
    """smallest and largest share of the image's area that a random crop keeps"""

    def __post_init__(self) -> None:
        low, high = self.crop_scale
        if not 0 < low <= high <= 1:
            raise ValueError(f"augment.crop_scale = {self.crop_scale}: needs 0 < low <= high <= 1")


@dataclass(frozen=True)
class PromptConfig:
    """How nouns become prompts of their own, for the noun-prompt loss (on when the model's loss.nouns > 0)."""

    template: str = "a photo of a {}"
    """prompt of an entity"""
    extra_nouns: tuple[str, ...] = ()
    """further nouns, such as backgrounds, that are looked for in captions as whole words"""
    extra_template: str = "the {}"
    """prompt of an extra noun"""

    def __post_init__(self) -> None:
        for name in ("template", "extra_template"):
            if getattr(self, name).count("{}") != 1:
                raise ValueError(f"prompts.{name} = {getattr(self, name)!r}: needs exactly one {{}}")


@dataclass(frozen=True)
class OptimConfig:
    """AdamW with a warm-up and a cosine per step."""

    lr: float = 1e-3
    """highest learning rate, reached when the warm-up ends"""
    min_lr: float = 1e-5
    """learning rate at the last step"""
    warmup_steps: int = 50
    """steps of linear rise from zero"""
    weight_decay: float = 0.05
    """decay of matrices and larger; vectors and scalars have none"""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's averaging of gradient and squared gradient"""
    clip_norm: float = 5.0
    """gradients are scaled down to this norm over all parameters"""

    def __post_init__(self) -> None:
        if not 0 <= self.min_lr <= self.lr:
            raise ValueError(f"optim.min_lr = {self.min_lr}: needs 0 <= min_lr <= lr = {self.lr}")
        for name in ("lr", "clip_norm"):
            if getattr(self, name) <= 0:
                raise ValueError(f"optim.{name} = {getattr(self, name)}: needs more than 0")
        for name in ("warmup_steps", "weight_decay"):
            if getattr(self, name) < 0:
                raise ValueError(f"optim.{name} = {getattr(self, name)}: needs 0 or more")


@dataclass(frozen=True)
class ComputeConfig:
    """How a step is computed: what it costs, and what it may change in the last digits."""

    precision: Literal["float32", "bfloat16"] = "float32"
    """`bfloat16`: matrix products and convolutions by torch.autocast; weights, norms and losses stay float32"""
    compile: bool = False
    """torch.compile of the transformer blocks; pays on a GPU, after a minute of compilation"""
    accumulate: int = 1
    """parts in which a worker's batch goes through the encoders, one after the other; heads and losses see all of it"""
    recompute: bool = False
    """activation checkpointing: blocks are computed again in the backward pass, for batches that do not fit"""

    def __post_init__(self) -> None:
        if self.accumulate < 1:
            raise ValueError(f"compute.accumulate = {self.accumulate}: needs 1 or more")


@dataclass(frozen=True)
class LaunchConfig:
    """Where a phase runs."""

    workers: int = 1
    """processes that share each batch (DDP)"""
    threads: int = 2
    """torch threads, and CPUs reserved in Ray, per worker"""
    use_gpu: bool = False
    """one GPU per worker, else CPU"""
    stage_dir: str | None = None
    """folder on each node's own disk that shards are copied to first; None reads them where they are"""
    max_failures: int = 2
    """how often Ray starts failed workers again, from the newest checkpoint"""

    def __post_init__(self) -> None:
        for name in ("workers", "threads"):
            if getattr(self, name) < 1:
                raise ValueError(f"launch.{name} = {getattr(self, name)}: needs 1 or more")
        if self.max_failures < 0:
            raise ValueError(f"launch.max_failures = {self.max_failures}: needs 0 or more")


@dataclass(frozen=True)
class ValidationConfig:
    """Zero-shot evaluation while a phase trains. It reads masks: to watch and to choose by, never to learn from."""

    every: int = 1000
    """steps between measurements; the last step is always measured"""
    benchmark: str | None = None
    """name of the benchmark; a recipe's run puts its own where there is none"""
    root: str | None = None
    """its folder; a recipe's run puts its own where there is none"""
    split: Split = "training"
    """`training`: images that the benchmark's figure is not taken from; `test`: those of the figure, as published (the
    release kept the checkpoint that was best on VOC's validation set), which makes the figure too good"""
    num_images: int = 200
    """images to measure on, at even steps over the split"""
    keep: Literal["last", "best"] = "last"
    """which becomes the phase's model; the best is in best/ either way"""
    protocol: Protocol | None = None
    """how the model is asked; a recipe's run puts its own where there is none"""

    def __post_init__(self) -> None:
        for name in ("every", "num_images"):
            if getattr(self, name) < 1:
                raise ValueError(f"validation.{name} = {getattr(self, name)}: needs 1 or more")


@dataclass(frozen=True)
class TrainConfig:
    """One training phase."""

    phase: Literal[1, 2] = 1
    """1: contrastive, masked entity completion, noun prompts; 2: also mask consistency, with the text tower frozen"""
    seed: int = 0
    """seed of weights, order, augmentation, caption and template choice, partners and noise"""
    steps: int = 800
    """optimiser steps; epochs follow from the number of images"""
    batch_size: int = 64
    """images per step, over all workers together"""
    augment: AugmentConfig = field(default_factory=AugmentConfig)
    """how images are varied"""
    masked: Literal["entities", "entity", "nouns"] = "entities"
    """what the question of masked entity completion leaves out: all entities, one drawn anew each time, or all nouns"""
    prompts: PromptConfig = field(default_factory=PromptConfig)
    """noun prompts"""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """optimiser and schedule"""
    tokenizer_size: int = 4000
    """word pieces learned from the captions before phase 1; no effect when the text encoder is a pretrained one"""
    momentum: float = 0.99
    """share of the momentum encoder kept at each step of phase 2"""
    loader_workers: int = 0
    """decoding processes per worker; 0 decodes in a thread beside the training"""
    max_undecodable_rate: float = 0.01
    """share of the images that may turn out undecodable before the run stops"""
    checkpoint_every: int = 100
    """steps between checkpoints, of which the last two are kept"""
    log_every: int = 20
    """steps between log lines"""
    validation: ValidationConfig | None = None
    """zero-shot evaluation on the way; None trains without a look at any mask"""
    compute: ComputeConfig = field(default_factory=ComputeConfig)
    """how a step is computed"""
    launch: LaunchConfig = field(default_factory=LaunchConfig)
    """workers and their resources"""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "tokenizer_size", "checkpoint_every", "log_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: needs 1 or more")
        for name in ("momentum", "max_undecodable_rate"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} = {getattr(self, name)}: needs a share between 0 and 1")
        if self.loader_workers < 0:
            raise ValueError(f"loader_workers = {self.loader_workers}: needs 0 or more")
        if self.batch_size % (self.launch.workers * self.compute.accumulate):
            raise ValueError(
                f"batch_size = {self.batch_size}: does not split over launch.workers = {self.launch.workers} times "
                f"compute.accumulate = {self.compute.accumulate}; choose a multiple"
            )
        if self.augment.kind == "deit" and self.loader_workers == 0:
            raise ValueError(
                "augment.kind = 'deit' with loader_workers = 0: timm draws from the process-wide generators that the "
                "model's noise uses too; use loader_workers >= 1"
            )
