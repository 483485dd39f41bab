"""The config of a whole run, and what its benchmark means for its stages."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from curation.captions import IngestConfig
from curation.download import DownloadConfig
from curation.pairs import PairsConfig
from curation.parse import ParseConfig
from curation.scenes import ScenesConfig
from evaluation.benchmarks import get_benchmark
from evaluation.config import Protocol
from model import ModelConfig
from training.config import TrainConfig


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
    download_on_ray: bool = False
    """images are fetched by all nodes of a Ray cluster; False: by the machine that the run was started on"""
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
