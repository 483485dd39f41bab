"""What each objective of the paper's ablation teaches on drawn scenes: mIoU on held-out scenes at equal steps.

    python -m tests.benchmarks.learning OUT --level plain --steps 400 --seeds 0 1 2

Every row is trained on the same scenes in a process of its own, one thread each, so that rows can run side by side:
start the command as often as there are cores. A row that is there is not run again; `--table` prints what is there.
No mask is read in training; the baselines' oracles are marked as such.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import logging
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from curation.captions import ingest
from curation.download import download
from curation.pairs import PairsConfig, build_pairs
from curation.parse import ParseConfig, parse
from curation.scenes import draw_scenes
from curation.scenes_drawing import Level
from curation.scenes_server import serve_scenes
from evaluation.evaluate import evaluate
from flows.ablations import ABLATIONS, ablated
from flows.config import PipelineConfig
from flows.recipes_small import demo
from flows.settings import with_settings
from model import LossConfig, OVSegmentor, initial
from training.config import TrainConfig
from training.loop import train_here
from training.phase import Phase

PHASE2_STEPS = 150
BOTH = "groups and patches"
"""the trained model that names each patch by itself and, half, by its groups"""


def rows(steps: int) -> dict[str, tuple[PipelineConfig, str | None]]:
    """Return the config of each row, and of phase 2 the row that it starts from.

    The paper's objectives come as they are; `groups` compares noun prompts with groups instead of with the image, as
    the demo does. Captions with the same entities are positives of each other in every row: with ten things most
    negatives would be false.
    """
    recipe = demo()
    plain = {name: ablated(recipe, ablation) for name, ablation in ABLATIONS.items()}
    for name, objective in (("groups", {}), ("groups+entities", {"entity": 1.0})):
        loss = LossConfig(**{"entity": 0.0, "mask": 0.0, "nouns": 1.0, **objective}, noun_pooling="groups")
        plain[name] = replace(recipe, model=replace(recipe.model, loss=loss), phase2=None)
    found: dict[str, tuple[PipelineConfig, str | None]] = {}
    for name, config in plain.items():
        shared = replace(config.model, loss=replace(config.model.loss, share_positives=True))
        phase1 = replace(
            config.phase1, steps=steps, checkpoint_every=steps, launch=replace(config.phase1.launch, threads=1)
        )
        found[name] = replace(config, model=shared, phase1=phase1), None
    for before in ("entities", "groups+entities"):
        config = found[before][0]
        assert recipe.phase2 is not None
        phase2 = replace(recipe.phase2, steps=PHASE2_STEPS, checkpoint_every=PHASE2_STEPS, launch=config.phase1.launch)
        for name, weight in (("mask", 1.6), ("more steps", 0.0)):
            model = replace(config.model, loss=replace(config.model.loss, mask=weight))
            found[f"{before}, then {name}"] = replace(config, model=model, phase2=phase2), before
    return found


def make_data(out: Path, level: Level) -> None:
    """Draw the scenes and take them through curation, once for all rows."""
    out.mkdir(parents=True, exist_ok=True)
    with (out / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        recipe = demo()
        assert recipe.scenes is not None
        scenes = replace(recipe.scenes, level=level, num_held_out=500, fault_rate=0.0, slow_rate=0.0)
        data_dir = out / "data"
        draw_scenes(out / "scenes", scenes)
        ingest(out / "scenes" / "captions.tsv", data_dir)
        parse(data_dir, ParseConfig(nouns=True))
        with serve_scenes(out / "scenes", scenes):
            download(data_dir, recipe.download)
        build_pairs(data_dir, PairsConfig())


def run(out: Path, name: str, seed: int, steps: int, settings: Sequence[str] = ()) -> None:
    """Train and measure a row with a seed, and keep its figures as JSON."""
    config, before = rows(steps)[name]
    config = with_settings(config, settings)
    run_dir, data_dir = out / f"{name} {seed}", out / "data"
    if before is None:
        model = train_here(Phase(data_dir, run_dir, config.model, _seeded(config.phase1, seed)))
    else:
        assert config.phase2 is not None
        with (out / f"{before} {seed}" / ".row").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another process may still be at it, or was killed
            if not (out / f"{before} {seed}" / "figures.json").exists():
                run(out, before, seed, steps, settings)
        start = out / f"{before} {seed}" / "model"
        model = train_here(Phase(data_dir, run_dir, config.model, _seeded(config.phase2, seed), start))
    trained = OVSegmentor.from_pretrained(model)
    models = {"untrained": initial(trained.config, trained.tokenizer, seed), BOTH: model}
    found = evaluate(models, "scenes", out / "scenes" / "benchmark", run_dir / "evaluation", config.protocol)
    figures = {row["name"]: row["miou"] for row in found["results"]}
    (run_dir / "figures.json").write_text(json.dumps(figures))


def table(out: Path, steps: int, seeds: list[int]) -> str:
    """Return the figures of the rows that are there as Markdown: mean over seeds (largest less smallest)."""
    columns = (BOTH, "groups", "patches", "colour_clusters", "groups_oracle", "colour_clusters_oracle", "untrained")
    lines = [f"| objective | seeds | {' | '.join(columns)} |", "| --- " * (len(columns) + 2) + "|"]
    for name in rows(steps):
        files = [out / f"{name} {seed}" / "figures.json" for seed in seeds]
        figures = [json.loads(file.read_text()) for file in files if file.exists()]
        cells = []
        for column in columns if figures else ():
            values = [row[column] for row in figures]
            cells.append(f"{statistics.mean(values):.3f} ({max(values) - min(values):.3f})")
        lines.append(f"| {name} | {len(figures)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _seeded(config: TrainConfig, seed: int) -> TrainConfig:
    return replace(config, seed=seed, validation=None)


def main() -> None:
    """Run the rows that nobody has begun, or print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, help="folder of scenes and runs; one per level, steps and settings")
    parser.add_argument("--level", choices=("plain", "shaded", "textured"), default="plain")
    parser.add_argument("--steps", type=int, default=400, help="of phase 1 (default 400)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--rows", nargs="+", help="only these rows")
    parser.add_argument(
        "--set", dest="settings", action="append", default=[], metavar="NAME=VALUE", help="change the rows' configs"
    )
    parser.add_argument("--table", action="store_true", help="run nothing, print what is there")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", stream=sys.stdout)
    if options.table:
        print(table(options.out, options.steps, options.seeds))
        return
    make_data(options.out, options.level)
    wanted = [(name, seed) for seed in options.seeds for name in options.rows or rows(options.steps)]
    for name, seed in wanted:
        run_dir = options.out / f"{name} {seed}"
        run_dir.mkdir(exist_ok=True)
        with (run_dir / ".row").open("a") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue  # another process runs it
            if not (run_dir / "figures.json").exists():
                run(options.out, name, seed, options.steps, options.settings)


if __name__ == "__main__":
    main()
