"""Recipes: Python functions that return the whole config of a run. A variant is a `replace` of another recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from curation.download import DownloadConfig
from curation.pairs import PairsConfig
from flows.ablations import ABLATIONS, Ablation, ablated
from flows.config import PipelineConfig
from flows.recipes_small import demo, demo_debug, photos
from model.presets import groupvit_vit_b, groupvit_vit_s, ovsegmentor_vit_b, ovsegmentor_vit_s
from training.config import AugmentConfig, ComputeConfig, LaunchConfig, OptimConfig, TrainConfig, ValidationConfig

Recipe = Callable[[int], PipelineConfig]
"""seed -> the config of a run"""


def cc4m(seed: int = 0) -> PipelineConfig:
    """The third of CC12M whose captions name an entity: the paper's data. `--plan` says what it takes before it starts.

    Command: ovseg run cc4m --out runs/cc4m --set benchmark_root=VOC2012
    Cost: 2.7 GB of table, some 4 million images (about 1 TB over the network, 140 GB of disk) and days: the wild web
          gives what it gives, and training wants GPUs.
    Terms: CC12M is Google's, free to use for any purpose, as is, with acknowledgement appreciated; the images belong to
          their owners, each under terms of its own. X-Robots-Tag is honoured; `--set ingest.removed=FILE` takes out.
    """
    return PipelineConfig(
        title="CC4M: masks from the captions of CC12M that name an entity",
        caveat="Addresses die: of CC12M's images of 2021 a part is gone, so this CC4M is smaller than the paper's, and "
        "the checkpoint is the last one, not the best on the benchmark.",
        table="cc12m",
        benchmark="voc",
        benchmark_root="VOC2012",
        # Training crops 224 pixels: from a shorter side of 288 a crop of 60 % of the image needs no enlarging.
        download=DownloadConfig(image_size=288, jpeg_quality=90, shard_size=10_000, processes=8, threads=32),
        pairs=PairsConfig(seed=seed),
        model=ovsegmentor_vit_b(),
        phase1=_published_phase(seed, 1),
        phase2=_published_phase(seed, 2),
    )


def cc4m_vit_s(seed: int = 0) -> PipelineConfig:
    """OVSegmentor ViT-S on CC4M, with RoBERTa as released.

    Command: ovseg run cc4m-vit-s --out runs/cc4m-vit-s --set benchmark_root=VOC2012
    Cost: data as cc4m; training somewhat less.
    Expected: 44.5 mIoU on VOC as published, from a CC4M of 2022.
    Terms: as those of cc4m.
    """
    return replace(cc4m(seed), title="CC4M: OVSegmentor ViT-S", model=ovsegmentor_vit_s())


def cc4m_groupvit_vit_s(seed: int = 0) -> PipelineConfig:
    """GroupViT ViT-S on CC4M, from scratch: captions and noun prompts, no masked entities, no partner images.

    Command: ovseg run cc4m-groupvit-vit-s --out runs/cc4m-groupvit-vit-s --set benchmark_root=VOC2012
    Cost: data as cc4m; phase 1 only.
    Expected: 19.8 mIoU on VOC in the rerun of OVSegmentor's authors, from a CC4M of 2022.
    Terms: as those of cc4m.
    """
    recipe = cc4m(seed)
    return replace(
        recipe,
        title="CC4M: GroupViT ViT-S",
        model=groupvit_vit_s(),
        # Its text tower starts from scratch, so its word pieces are learned from the captions.
        phase1=replace(recipe.phase1, tokenizer_size=30_000),
        phase2=None,
    )


def cc4m_groupvit_vit_b(seed: int = 0) -> PipelineConfig:
    """GroupViT ViT-B on CC4M, otherwise as the ViT-S.

    Command: ovseg run cc4m-groupvit-vit-b --out runs/cc4m-groupvit-vit-b --set benchmark_root=VOC2012
    Cost: data as cc4m; phase 1 only.
    Expected: 25.8 mIoU on VOC in the rerun of OVSegmentor's authors, from a CC4M of 2022.
    Terms: as those of cc4m.
    """
    return replace(cc4m_groupvit_vit_s(seed), title="CC4M: GroupViT ViT-B", model=groupvit_vit_b())


def _ablation_recipe(name: str, ablation: Ablation) -> Recipe:
    def recipe(seed: int = 0) -> PipelineConfig:
        return ablated(cc4m(seed), ablation)

    recipe.__doc__ = f"""CC4M, ViT-B, phase 1 only, objective: {ablation.title}.

    Command: ovseg run {name} --out runs/{name} --set benchmark_root=VOC2012
    Cost: data as cc4m (which can be shared: see docs/training.md); phase 1 only.
    Expected: as published, on VOC / Context: {ablation.published}.
    Terms: as those of cc4m.
    """
    return recipe


def cc4m_similar_pairs(seed: int = 0) -> PipelineConfig:
    """CC4M, ViT-B, with partners drawn among the images whose captions are nearest, not among all of an entity.

    Command: ovseg run cc4m-similar-pairs --out runs/cc4m-similar-pairs --set benchmark_root=VOC2012
    Cost: as cc4m, and an hour or two for the nearest captions.
    Expected: not published.
    Terms: as those of cc4m.
    """
    recipe = cc4m(seed)
    return replace(recipe, title="CC4M: partners with similar captions", pairs=replace(recipe.pairs, kind="similar"))


def shrunk(recipe: PipelineConfig) -> PipelineConfig:
    """Return a recipe's debug twin: its losses, stages and phases on a handful of drawn scenes and a toy's sizes.

    Nothing is fetched from outside and a CPU trains it in seconds; its figures mean nothing.
    """
    image, text = recipe.model.image, recipe.model.text
    debug = demo_debug(recipe.phase1.seed)
    model = replace(
        recipe.model,
        image=replace(
            image,
            image_size=64,
            width=48,
            num_heads=4,
            depths=(1,) * len(image.depths),
            num_group_tokens=(8,) * len(image.num_group_tokens),
            num_groups=(8,) * len(image.num_groups),
            pretrained=None,
        ),
        text=replace(text, width=32, num_layers=1, num_heads=4, pretrained=None),
        embedding_width=32,
        projector_width=64,
    )

    def phase(config: TrainConfig, like: TrainConfig) -> TrainConfig:
        # Everything that is part of the method stays; how much and where is the debug run's.
        return replace(
            config,
            steps=like.steps,
            batch_size=like.batch_size,
            optim=replace(config.optim, warmup_steps=0),
            compute=like.compute,
            tokenizer_size=like.tokenizer_size,
            loader_workers=1,
            checkpoint_every=like.checkpoint_every,
            validation=like.validation,
            launch=like.launch,
        )

    assert debug.phase2 is not None
    return replace(
        debug,
        title=f"Debug twin of {recipe.title}",
        parse=replace(debug.parse, nouns=recipe.parse.nouns),
        pairs=replace(debug.pairs, kind=recipe.pairs.kind),
        model=model,
        phase1=phase(recipe.phase1, debug.phase1),
        phase2=None if recipe.phase2 is None else phase(recipe.phase2, debug.phase2),
    )


def cc12m(seed: int = 0) -> PipelineConfig:
    """All of CC12M, whether or not a caption names an entity: the data that CC4M was taken from.

    Command: ovseg run cc12m --out runs/cc12m --set benchmark_root=VOC2012
    Cost: 2.7 GB of table, some 9 million images (about 2.5 TB over the network, 350 GB of disk), three times the days
          of cc4m.
    Terms: as those of cc4m.
    """
    recipe = cc4m(seed)
    return replace(
        recipe,
        title="CC12M: masks from all captions",
        caveat="Two thirds of these captions name no entity of the vocabulary: their images have no partner and no "
        "masked entity, and take part in the contrastive loss only. " + recipe.caveat,
        download=replace(recipe.download, everything=True),
    )


def _twin(name: str, recipe: Recipe) -> Recipe:
    def debug(seed: int = 0) -> PipelineConfig:
        return shrunk(recipe(seed))

    debug.__doc__ = f"""Every stage of {name} on drawn scenes, at a toy's sizes; its figures mean nothing.

    Command: ovseg run {name}-debug --out runs/{name}-debug
    Cost: about 2 minutes on 2 CPU cores, nearly all of it start-up.
    """
    return debug


PUBLISHED: dict[str, Recipe] = {
    "cc4m": cc4m,
    "cc4m-vit-s": cc4m_vit_s,
    "cc4m-groupvit-vit-s": cc4m_groupvit_vit_s,
    "cc4m-groupvit-vit-b": cc4m_groupvit_vit_b,
}
"""rows of the paper's main table; each has a debug twin"""
ABLATED: dict[str, Recipe] = {
    "cc4m-similar-pairs": cc4m_similar_pairs,
    **{f"cc4m-{name}": _ablation_recipe(f"cc4m-{name}", ablation) for name, ablation in ABLATIONS.items()},
}
"""rows of its ablations; each has a debug twin"""
RECIPES: dict[str, Recipe] = {
    "demo": demo,
    "demo-debug": demo_debug,
    "photos": photos,
    **PUBLISHED,
    "cc12m": cc12m,
    **ABLATED,
    **{f"{name}-debug": _twin(name, recipe) for name, recipe in (PUBLISHED | ABLATED).items()},
}


def get_recipe(name: str, seed: int = 0) -> PipelineConfig:
    """Return the config of a recipe; an unknown name raises ValueError that lists the known ones."""
    if name not in RECIPES:
        raise ValueError(f"recipe '{name}' is unknown; known are {', '.join(RECIPES)}")
    return RECIPES[name](seed)


def _published_phase(seed: int, phase: Literal[1, 2]) -> TrainConfig:
    """Return a phase as it was published, for 4 million images: 30 epochs on 8 GPUs, then 10 with half the batch.

    Source: the release's configs; its learning rates are given for 4,096 images a step and scaled to the batch.
    """
    batch_size, epochs, lr = {1: (2048, 30, 3.2e-4), 2: (1024, 10, 2.5e-6)}[phase]
    steps_per_epoch = 4_000_000 // batch_size
    warmup_steps, min_lr = {1: (2 * steps_per_epoch, 4e-5), 2: (0, 2.5e-7)}[phase]
    return TrainConfig(
        phase=phase,
        seed=seed,
        steps=epochs * steps_per_epoch,
        batch_size=batch_size,
        augment=AugmentConfig(kind="deit", crop_scale=(0.08, 1.0)) if phase == 1 else AugmentConfig(kind="crop"),
        optim=OptimConfig(lr=lr, min_lr=min_lr, warmup_steps=warmup_steps),
        compute=ComputeConfig(precision="bfloat16", compile=True),
        loader_workers=4,
        checkpoint_every=500,
        validation=ValidationConfig(every=steps_per_epoch),
        launch=LaunchConfig(workers=8, threads=4, use_gpu=True),
    )
