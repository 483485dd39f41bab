"""Recipes: Python functions that return the whole config of a run. A variant is a `replace` of another recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from curation.captions import IngestConfig
from curation.download import DownloadConfig
from curation.pairs import PairsConfig
from curation.parse import ParseConfig
from curation.scenes import ScenesConfig
from curation.scenes_drawing import GROUNDS
from evaluation.benchmarks import get_benchmark
from evaluation.config import Protocol
from model import ImageConfig, LossConfig, ModelConfig, TextConfig
from model.presets import groupvit_vit_b, groupvit_vit_s, ovsegmentor_vit_b, ovsegmentor_vit_s
from training.config import (
    AugmentConfig,
    ComputeConfig,
    LaunchConfig,
    OptimConfig,
    PromptConfig,
    TrainConfig,
    ValidationConfig,
)


@dataclass(frozen=True)
class PipelineConfig:
    """A whole run, from its source of captions to its report."""

    title: str
    """headline of the report"""
    caveat: str = ""
    """what the figures do not show; the report prints it beside them"""
    scenes: ScenesConfig | None = None
    """scenes to draw and serve as the source; None takes `table`"""
    table: str | None = None
    """caption table with an address (url) or a path (image) and a caption per row: a file, folder, glob or address, or
    the name of a published one (cc12m, cc3m)"""
    image_root: str | None = None
    """folder that the table's image paths are relative to"""
    serve_port: int | None = None
    """port on 127.0.0.1 where image_root is served, so that its images come by HTTP; None reads the files"""
    benchmark: str = "scenes"
    """name of the benchmark"""
    benchmark_root: str | None = None
    """folder of the benchmark; None takes the held-out scenes"""
    ingest: IngestConfig = field(default_factory=IngestConfig)
    """reading the table"""
    parse: ParseConfig = field(default_factory=ParseConfig)
    """finding entities"""
    download: DownloadConfig = field(default_factory=DownloadConfig)
    """fetching images"""
    pairs: PairsConfig = field(default_factory=PairsConfig)
    """drawing partners"""
    model: ModelConfig = field(default_factory=ModelConfig)
    """the model of both phases"""
    phase1: TrainConfig = field(default_factory=TrainConfig)
    """contrastive loss, masked entity completion, noun prompts"""
    phase2: TrainConfig | None = field(default_factory=lambda: TrainConfig(phase=2))
    """the same with cross-image mask consistency; None ends with phase 1, and no pairs are drawn"""
    protocol: Protocol = field(default_factory=Protocol)
    """zero-shot evaluation"""

    def __post_init__(self) -> None:
        if (self.scenes is None) == (self.table is None):
            raise ValueError(
                f"table = {self.table!r} and scenes = {self.scenes!r}: give exactly one source; "
                "pass --set table=PATH for your own captions"
            )
        if self.scenes is None and self.benchmark_root is None:
            raise ValueError("benchmark_root = None: without drawn scenes it is needed; pass --set benchmark_root=PATH")
        if self.serve_port is not None and self.image_root is None:
            raise ValueError(f"serve_port = {self.serve_port}: nothing to serve; pass --set image_root=PATH")


def with_benchmark(config: TrainConfig, recipe: PipelineConfig, root: Path | None) -> TrainConfig:
    """Return a phase whose validation takes the recipe's benchmark, found at `root`, and protocol where it has none.

    Without a folder to validate on, the phase has no validation.
    """
    validation = config.validation
    if validation is None or (validation.root is None and root is None):
        return replace(config, validation=None)
    if validation.root is None:
        assert root is not None
        validation = replace(validation, benchmark=recipe.benchmark, root=str(root.resolve()))
    return replace(config, validation=replace(validation, protocol=validation.protocol or recipe.protocol))


def check_benchmark(recipe: PipelineConfig) -> None:
    """Open a recipe's benchmark folder, and what its phases validate on, before hours are spent; drawn scenes are ours.

    Raises: FileNotFoundError or ValueError that says what was looked for and what was found.
    """
    if recipe.benchmark_root is None:
        return
    root = Path(recipe.benchmark_root)
    get_benchmark(recipe.benchmark).open(root)
    for phase in (recipe.phase1, recipe.phase2):
        validation = None if phase is None else with_benchmark(phase, recipe, root).validation
        if validation is not None and validation.benchmark is not None and validation.root is not None:
            get_benchmark(validation.benchmark).open(Path(validation.root), validation.split)


def without_benchmark_images(recipe: PipelineConfig) -> DownloadConfig:
    """Return the recipe's download, which leaves out images that nearly equal one of its benchmark folder's."""
    if recipe.benchmark_root is None:
        return recipe.download
    images = Path(recipe.benchmark_root).resolve() / get_benchmark(recipe.benchmark).splits.test.images
    return replace(recipe.download, benchmarks=(*recipe.download.benchmarks, str(images)))


Recipe = Callable[[int], PipelineConfig]
"""seed -> the config of a run"""


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


@dataclass(frozen=True)
class Ablation:
    """What phase 1 is trained with beside the captions' contrastive loss: a row of the paper's table of objectives."""

    title: str
    """as the paper calls it"""
    loss: LossConfig
    """its losses"""
    published: str
    """mIoU on VOC and Context with ViT-B, as published"""
    masked: Literal["entities", "entity", "nouns"] = "entities"
    """what the question leaves out"""


def _objective(entity: float = 0.0, nouns: float = 0.0, words: float = 0.0, **others: Any) -> LossConfig:
    return LossConfig(entity=entity, mask=0.0, nouns=nouns, words=words, **others)


ABLATIONS: dict[str, Ablation] = {
    "contrastive": Ablation("contrastive loss alone", _objective(), "not in that table"),
    "entities": Ablation("all entities", _objective(entity=1.0), "48.9 / 19.9"),
    "entity": Ablation("single entity", _objective(entity=1.0), "47.0 / 18.5", masked="entity"),
    "nouns": Ablation("all nouns", _objective(entity=1.0), "45.4 / 17.4", masked="nouns"),
    "multi-label": Ablation("multi-label contrastive", _objective(nouns=1.0), "44.5 / 17.0"),
    "words-groups": Ablation("masked language modelling with groups", _objective(words=1.0), "42.8 / 16.3"),
    "words-text": Ablation(
        "masked language modelling without groups", _objective(words=1.0, words_see="text"), "36.3 / 14.6"
    ),
}
"""the paper's objectives, by the name of their recipe"""


def ablated(recipe: PipelineConfig, ablation: Ablation) -> PipelineConfig:
    """Return a recipe that ends with phase 1, trained with another objective."""
    return replace(
        recipe,
        title=f"{recipe.title}, objective: {ablation.title}",
        parse=replace(recipe.parse, nouns=recipe.parse.nouns or ablation.masked == "nouns"),
        model=replace(recipe.model, loss=ablation.loss),
        phase1=replace(recipe.phase1, masked=ablation.masked),
        phase2=None,
    )


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
            num_group_tokens=(16,),
            num_groups=(8,),
            query="assignment",
            similarity="cosine",
            drop_path=0.0,
        ),
        text=TextConfig(width=96, num_layers=2, num_heads=4, dropout=0.0, max_length=40),
        loss=LossConfig(nouns=1.0, noun_pooling="groups", share_positives=True),
        embedding_width=128,
        projector="linear",
    )


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


def _small_phase(seed: int) -> TrainConfig:
    return TrainConfig(
        seed=seed,
        batch_size=64,
        augment=AugmentConfig(kind="flip"),
        optim=OptimConfig(lr=2e-3),
        prompts=PromptConfig(extra_nouns=GROUNDS),
        validation=ValidationConfig(every=250, num_images=100),
        launch=LaunchConfig(workers=1, threads=2),
    )
