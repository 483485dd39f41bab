"""Recipes for two CPU cores: drawn scenes, and photographs of your own."""

from __future__ import annotations

from dataclasses import replace

from curation.download import DownloadConfig
from curation.pairs import PairsConfig
from curation.scenes import ScenesConfig
from curation.scenes_drawing import GROUNDS
from evaluation.config import Protocol
from flows.config import PipelineConfig
from model import ImageConfig, LossConfig, ModelConfig, TextConfig
from training.config import AugmentConfig, LaunchConfig, OptimConfig, PromptConfig, TrainConfig, ValidationConfig


def demo(seed: int = 0) -> PipelineConfig:
    """Drawn scenes over real HTTP to a small segmenter that learns masks from captions alone.

    Command: make demo, or: ovseg run demo --out runs/demo
    Cost: about 10 to 15 minutes on 2 CPU cores, 300 MB of disk.
    """
    return PipelineConfig(
        title="Demo: masks from captions of drawn scenes",
        caveat="Drawn scenes of 64 x 64 pixels: the figures show that the pipeline learns, not how it does on photos.",
        scenes=ScenesConfig(level="shaded", seed=seed),
        download=DownloadConfig(allow_private=True, image_size=64, shard_size=500),
        pairs=PairsConfig(seed=seed),
        model=_small_model(),
        phase1=replace(_small_phase(seed), steps=1250),
        phase2=replace(_small_phase(seed), phase=2, steps=150, optim=OptimConfig(lr=1e-4, warmup_steps=0)),
        protocol=Protocol(
            templates=("a photo of a {}",),  # the prompts of training, to the dot
            background="words",
            background_words=GROUNDS,
            background_templates=("the {}",),
            assignment="soft",
            patch_share=0.5,
        ),
    )


def demo_debug(seed: int = 0) -> PipelineConfig:
    """Every stage of the demo on a handful of scenes; its figures mean nothing.

    Command: ovseg run demo-debug --out runs/demo-debug
    Cost: about 2 minutes on 2 CPU cores, nearly all of it start-up.
    """
    recipe = demo(seed)
    assert recipe.scenes is not None
    assert recipe.phase2 is not None
    return replace(
        recipe,
        title="Debug run: every stage of the demo, too short to learn",
        caveat="A handful of scenes and steps: the run shows that every stage works; its figures mean nothing.",
        scenes=replace(recipe.scenes, num_images=300, num_held_out=20, num_validation=10),
        phase1=replace(recipe.phase1, steps=12, checkpoint_every=4),
        phase2=replace(recipe.phase2, steps=6, checkpoint_every=3),
    )


def photos(seed: int = 0) -> PipelineConfig:
    """A caption table, a folder of photographs and a benchmark folder of your own.

    Command: ovseg run photos --out runs/photos --set table=photos.tsv --set image_root=photos
             --set benchmark_root=VOC2012
    Cost: with 900 photographs about 10 minutes on 2 CPU cores.
    """
    return PipelineConfig(
        title="Photographs with captions",
        caveat="A few hundred photographs, some minutes and no pretrained weights: this mIoU says nothing about the "
        "method. The run shows that real captions, images and masks go through every stage.",
        table="photos.tsv",
        image_root="photos",
        benchmark="voc",
        benchmark_root="VOC2012",
        download=DownloadConfig(allow_private=True, image_size=128, shard_size=250),
        pairs=PairsConfig(seed=seed),
        model=_small_model(image_size=112, patch_size=8),
        # Nothing is asked of the benchmark folder but the images of its figure: no validation.
        phase1=replace(_small_phase(seed), steps=300, augment=AugmentConfig(kind="crop"), validation=None),
        phase2=replace(
            _small_phase(seed),
            phase=2,
            steps=60,
            augment=AugmentConfig(kind="crop"),
            optim=OptimConfig(lr=1e-4, warmup_steps=0),
            validation=None,
        ),
        protocol=Protocol(templates=("a photo of a {}",), shorter_side=128, window=112, stride=56),
    )


def _small_model(image_size: int = 64, patch_size: int = 4) -> ModelConfig:
    """The smallest config with which masks were seen to emerge from captions on two CPU cores."""
    return ModelConfig(
        image=ImageConfig(
            image_size=image_size,
            stem="conv",
            stem_layers=2,
            stem_norm="batch",
            patch_size=patch_size,
            width=96,
            num_heads=4,
            depths=(0, 0),
            num_group_tokens=(32,),
            num_groups=(16,),  # ten things and six grounds, all of which captions name
            query="assignment",
            similarity="cosine",
            drop_path=0.0,
        ),
        text=TextConfig(width=96, num_layers=2, num_heads=4, dropout=0.0, max_length=40),
        loss=LossConfig(nouns=1.0, noun_pooling="groups", share_positives=True),
        embedding_width=128,
        projector="linear",
    )


def _small_phase(seed: int) -> TrainConfig:
    return TrainConfig(
        seed=seed,
        batch_size=64,
        augment=AugmentConfig(kind="flip"),
        optim=OptimConfig(lr=1e-3),
        prompts=PromptConfig(extra_nouns=GROUNDS),
        validation=ValidationConfig(every=250, num_images=100),
        launch=LaunchConfig(workers=1, threads=2),
    )
