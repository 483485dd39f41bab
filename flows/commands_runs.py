"""The commands of `ovseg` about whole runs: what each does with its parsed options; its text is the command's help."""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from flows.cluster import prefect_server, ray_cluster
from flows.commands_models import figures
from flows.places import DATACARDS
from flows.settings import with_settings
from flows.storage import Needs, working_copy

if TYPE_CHECKING:
    from flows.config import PipelineConfig

# Rooms are imported by the command that needs them: `ovseg --help` and `ovseg entities` should not load torch.


def recipes(_: argparse.Namespace) -> None:
    """List the recipes, with command and cost.

    Examples:
        ovseg recipes
    """
    from flows.recipes import RECIPES

    for name, recipe in RECIPES.items():
        print(f"{name}\n    {(recipe.__doc__ or '').strip()}\n")


def run(options: argparse.Namespace) -> None:
    """Run a recipe from captions to report; the same command again resumes it.

    Examples:
        ovseg run demo
        ovseg run demo-debug --out runs/short --set phase1.steps=8
        ovseg run photos --set table=my.tsv --set image_root=photos --set benchmark_root=VOC2012 --plan
    """
    config = _recipe(options)
    out = options.out or Path("runs") / options.recipe
    if options.plan:
        from flows.plan import plan_run, show

        with working_copy(out, "plan", Needs(reads=tuple(f"data/{name}" for name in DATACARDS))) as folder:
            print(f"{config.title}\n{config.caveat}\n\n{show(plan_run(config, folder))}")
        print("Training and evaluation are not planned: their time is the accelerator's.")
        return
    begun = time.monotonic()
    with prefect_server(_prefect_home()) as address, ray_cluster():
        from flows.pipeline import pipeline

        print(f"Prefect shows this run at {address}")
        page = pipeline(config, out)
    with working_copy(out, "figures", Needs(reads=("evaluation/evaluation.json",))) as folder:
        print(f"\n{_summary(folder)}")
    print(f"{time.monotonic() - begun:.0f} s in all\nreport: {page}")


def _summary(out: Path) -> str:
    return figures(json.loads((out / "evaluation" / "evaluation.json").read_text()))


def train(options: argparse.Namespace) -> None:
    """Train both phases of a recipe on a data folder.

    Examples:
        ovseg train cc4m-vit-s --data data --out runs/vit-s
        ovseg train demo --data data --out runs/mine --set phase1.steps=200 --seed 1
    """
    from flows.config import with_benchmark
    from training.launch import train

    config, out = _recipe(options), options.out
    root = Path(config.benchmark_root) if config.benchmark_root else None
    phases = [with_benchmark(phase, config, root) for phase in (config.phase1, config.phase2) if phase is not None]
    model = None
    with ray_cluster():
        for phase in phases:
            model = train(options.data_dir, out / f"phase{phase.phase}", config.model, phase, model)
    print(f"model: {model}")


def _recipe(options: argparse.Namespace) -> PipelineConfig:
    from flows.recipes import get_recipe

    return with_settings(get_recipe(options.recipe, options.seed), options.settings)


def report(options: argparse.Namespace) -> None:
    """Write RUN/report/index.html anew, or a page that compares several runs.

    Examples:
        ovseg report runs/demo
        ovseg report runs/demo runs/short --out comparison.html
    """
    from evaluation.compare import write_comparison
    from evaluation.report import write_report

    if len(options.runs) > 1:
        print(f"comparison: {write_comparison(options.runs, options.out)}")
    else:
        (run,) = options.runs
        print(f"report: {write_report(run, run.name)}")


def up(_: argparse.Namespace) -> None:
    """Start Prefect's server and worker and a Ray head on this machine, deploy all recipes and stages.

    Examples:
        ovseg up
    """
    from flows import services

    if found := services.running(_prefect_home()):
        print("running already; `ovseg down` ends it")
    print(services.describe(found or services.up(_prefect_home())))


def down(_: argparse.Namespace) -> None:
    """End what `ovseg up` has started, and nothing else.

    Examples:
        ovseg down
    """
    from flows import services

    home = _prefect_home()
    ended = services.down(home)
    print(f"{ended} processes ended" if ended else f"nothing runs that `ovseg up` has started from {home}")


def _prefect_home() -> Path:
    return Path(os.environ.get("PREFECT_HOME", ".prefect")).resolve()
