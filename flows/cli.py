"""The command line, `ovseg`: recipes as whole runs, and every stage by itself on a data folder."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from inspect import cleandoc
from pathlib import Path

from flows import commands_data, commands_models, commands_runs
from flows.commands_models import IMAGENET
from flows.places import as_place, working_copies

AsWritten = argparse.RawDescriptionHelpFormatter
EXAMPLES = """Examples:
    ovseg run demo
    ovseg segment runs/demo/phase2/model photo.jpg --classes "house, boat" --background "sky, grass"
    ovseg download --help
"""

Command = Callable[[argparse.Namespace], None]
Add = Callable[[Command], argparse.ArgumentParser]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; user errors are one line on stderr and exit status 1."""
    options = parser().parse_args(arguments)
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for room in ("curation", "model", "training", "evaluation", "flows"):
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        with working_copies(options.name, vars(options)) as values:
            options.command(argparse.Namespace(**values))
    except (ValueError, OSError) as error:
        print(f"ovseg {options.name}: {error}", file=sys.stderr)
        return 1
    return 0


def parser() -> argparse.ArgumentParser:
    """Return what reads the arguments of all commands."""
    program = argparse.ArgumentParser(prog="ovseg", description=__doc__, epilog=EXAMPLES, formatter_class=AsWritten)
    subparsers = program.add_subparsers(required=True, metavar="COMMAND", dest="name")

    def add(command: Command) -> argparse.ArgumentParser:
        text, _, examples = cleandoc(command.__doc__ or "").partition("\n\n")
        added = subparsers.add_parser(
            command.__name__, help=text, description=text, epilog=examples, formatter_class=AsWritten
        )
        added.set_defaults(command=command)
        return added

    _add_recipes(add)
    _add_captions(add)
    _add_images(add)
    _add_queries(add)
    _add_models(add)
    return program


def _add_recipes(add: Add) -> None:
    add(commands_runs.recipes)

    run = add(commands_runs.run)
    _recipe_of(run)
    run.add_argument("--out", type=as_place, help="folder of the run (default runs/RECIPE)")
    _plan(run)

    add(commands_runs.up)
    add(commands_runs.down)

    train = add(commands_runs.train)
    _recipe_of(train)
    train.add_argument("--data", dest="data_dir", type=as_place, required=True, metavar="DIR", help="data folder")
    train.add_argument("--out", type=as_place, required=True, help="folder for phase1/ and phase2/")


def _add_captions(add: Add) -> None:
    ingest = add(commands_data.ingest)
    ingest.add_argument(
        "table",
        help="TSV, CSV, Parquet or JSON lines with url or image, and caption: a file, folder, glob, "
        "s3:// or http(s):// address, or cc12m or cc3m by name",
    )
    ingest.add_argument("--out", type=as_place, required=True, metavar="DIR", help="data folder")
    ingest.add_argument(
        "--remove", dest="removed", metavar="FILE", help="take out rows with an address, domain or key of this list"
    )
    ingest.add_argument("--subset", metavar="FILE", help="keep the captions of this subset manifest only")
    _settings(ingest)
    _plan(ingest)

    parse = add(commands_data.parse)
    _data(parse)
    parse.add_argument("--nouns", action="store_true", help="write the spans of all nouns too")
    _settings(parse)
    _plan(parse)

    vocabulary = add(commands_data.vocabulary)
    _data(vocabulary)
    vocabulary.add_argument("--top", type=int, default=100, help="nouns to propose (default 100)")
    vocabulary.add_argument("--captions", type=int, default=100_000, help="captions to read (default 100,000)")
    vocabulary.add_argument("--out", type=Path, metavar="FILE", help="TOML file to write (default: print it)")


def _add_images(add: Add) -> None:
    download = add(commands_data.download)
    _data(download)
    download.add_argument(
        "--image-root", help="folder, or http(s) address, of the images that the table gives as paths"
    )
    instead = download.add_mutually_exclusive_group()
    instead.add_argument(
        "--verify", action="store_true", help="fetch nothing: name damaged shards, so that the next call mends them"
    )
    instead.add_argument(
        "--shards", type=Path, metavar="FOLDER", help="fetch nothing: link the shards that img2dataset made there"
    )
    _plan(instead)
    download.add_argument("--ray", action="store_true", help="shards as Ray tasks: on all nodes of a cluster")
    _settings(download)

    embed = add(commands_data.embed)
    _data(embed)
    embed.add_argument("model", type=as_place, help="folder of a saved model")
    embed.add_argument("--of", choices=("captions", "images"), default="captions", help="what to embed")
    embed.add_argument("--device", help="torch's name of a device (default: a GPU if there is one)")
    embed.add_argument("--batch-size", type=int, default=128, help="captions or images at once (default 128)")
    _settings(embed)

    pairs = add(commands_data.pairs)
    _data(pairs)
    _settings(pairs)


def _add_queries(add: Add) -> None:
    entities = add(commands_data.entities)
    _data(entities)
    entities.add_argument("query", nargs="?", help='like "cat and (sofa or bed) and not dog"')
    entities.add_argument("--limit", type=int, default=20, help="most rows (default 20)")
    instead = entities.add_mutually_exclusive_group()
    instead.add_argument("--count", action="store_true", help="only how many captions match")
    instead.add_argument(
        "--together", action="store_true", help="which entities are named together (in matching captions)"
    )
    instead.add_argument("--sample", type=int, metavar="N", help="N random rows (that match)")
    entities.add_argument("--seed", type=int, default=0, help="seed of the sample (default 0)")
    entities.add_argument("--format", choices=("table", "csv", "jsonl"), default="table")

    subset = add(commands_data.subset)
    _data(subset)
    subset.add_argument("--out", type=Path, required=True, metavar="FILE", help="manifest to write (Parquet)")

    _data(add(commands_data.card))


def _add_models(add: Add) -> None:
    evaluate = add(commands_models.evaluate)
    evaluate.add_argument(
        "models", nargs="+", metavar="MODEL", help="folder of a saved model, or NAME=FOLDER; baselines go with the last"
    )
    evaluate.add_argument(
        "--benchmark", required=True, help=f"name of the benchmark (docs/evaluation.md), or {IMAGENET}"
    )
    evaluate.add_argument("--root", type=as_place, required=True, help="folder of the benchmark")
    evaluate.add_argument("--out", type=as_place, required=True, help="folder for evaluation.json and pictures")
    evaluate.add_argument("--paper", action="store_true", help="the published protocol in place of the default one")
    evaluate.add_argument("--backgrounds", action="store_true", help="compare rules for background, in the same pass")
    evaluate.add_argument("--unseen", metavar="NAMES", help="classes of the unseen figures (default: the usual split)")
    evaluate.add_argument("--no-baselines", action="store_true", help="measure the models alone: half the time")
    evaluate.add_argument("--names", type=Path, metavar="FILE", help=f"names of the classes, for {IMAGENET}")
    evaluate.add_argument("--device", help="torch's name of a device (default: a GPU if there is one)")
    evaluate.add_argument("--ray", action="store_true", help="parts of the images as Ray tasks")
    _settings(evaluate)

    segment = add(commands_models.segment)
    _model(segment)
    segment.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or quoted patterns")
    segment.add_argument(
        "--classes", dest="words", metavar="WORDS", required=True, help='what to look for, like "dog, grass"'
    )
    segment.add_argument(
        "--out", type=Path, default=Path("masks"), metavar="DIR", help="folder to write (default masks)"
    )
    _settings(segment)

    app = add(commands_models.app)
    _model(app)
    app.add_argument("--port", type=int, default=7860, help="port on 127.0.0.1 (default 7860)")
    _settings(app)

    convert = add(commands_models.convert)
    convert.add_argument(
        "source", help="checkpoint file of OVSegmentor's authors, or folder or hub name of a GroupViT of transformers"
    )
    convert.add_argument("out", type=Path, metavar="DEST", help="model folder to write")
    convert.add_argument("--tokenizer", help="folder or hub name (the authors': distilbert-base-uncased)")
    convert.add_argument("--config", type=Path, metavar="YML", help="the authors' config (default: ViT-B, stage 2)")
    convert.add_argument("--text-config", help="folder or hub name of the text encoder's config (default: bert-base)")

    report = add(commands_runs.report)
    report.add_argument(
        "runs",
        nargs="+",
        type=as_place,
        metavar="RUN",
        help="folder of a run; the others' figures are told against the first's",
    )
    report.add_argument(
        "--out",
        type=Path,
        default=Path("comparison.html"),
        metavar="FILE",
        help="page of a comparison (default comparison.html)",
    )


def _recipe_of(command: argparse.ArgumentParser) -> None:
    command.add_argument("recipe", help="a name that `ovseg recipes` lists")
    command.add_argument("--seed", type=int, default=0, help="seed of everything random (default 0)")
    _settings(command)


def _data(command: argparse.ArgumentParser) -> None:
    command.add_argument("data_dir", type=as_place, metavar="DIR", help="data folder")


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=as_place, help="folder of a saved model")
    command.add_argument(
        "--background", default="", metavar="WORDS", help='things that count as none, like "sky, wall"'
    )
    command.add_argument("--device", help="torch's name of a device (default: a GPU if there is one)")


def _settings(command: argparse.ArgumentParser) -> None:
    command.add_argument("--set", dest="settings", action="append", default=[], metavar="NAME=VALUE")


def _plan(command: argparse._ActionsContainer) -> None:
    command.add_argument("--plan", action="store_true", help="say rows, disk, network and time, and do nothing")


if __name__ == "__main__":
    sys.exit(main())
