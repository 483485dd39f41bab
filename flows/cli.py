"""The command line, `ovseg`: recipes as whole runs, and every stage by itself on a data folder."""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cluster import prefect_server, ray_cluster
from flows.settings import with_settings

if TYPE_CHECKING:
    from flows.recipes import PipelineConfig
    from model import OVSegmentor

IMAGENET = "imagenet"
"""the benchmark that has no masks"""
Add = Callable[[str, Callable[[argparse.Namespace], None], str], argparse.ArgumentParser]

# Rooms are imported by the command that needs them: `ovseg --help` and `ovseg entities` should not load torch.


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; user errors are one line on stderr and exit status 1."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for room in ("curation", "model", "training", "evaluation", "flows"):
        logging.getLogger(room).setLevel(logging.INFO)
    try:
        options.command(options)
    except (ValueError, OSError) as error:
        print(f"ovseg {options.name}: {error}", file=sys.stderr)
        return 1
    return 0


def _recipes(_: argparse.Namespace) -> None:
    from flows.recipes import RECIPES

    for name, recipe in RECIPES.items():
        print(f"{name}\n    {(recipe.__doc__ or '').strip()}\n")


def _run(options: argparse.Namespace) -> None:
    config = _recipe(options)
    out = options.out or Path("runs") / options.recipe
    if options.plan:
        from flows.plan import plan_run, show

        print(f"{config.title}\n{config.caveat}\n\n{show(plan_run(config, out))}")
        print("Training and evaluation are not planned: their time is the accelerator's.")
        return
    begun = time.monotonic()
    with prefect_server(Path(os.environ.get("PREFECT_HOME", ".prefect")).resolve()) as address, ray_cluster():
        from flows.pipeline import pipeline

        print(f"Prefect shows this run at {address}")
        page = pipeline(config, out)
    print(f"\n{_summary(out)}\n{time.monotonic() - begun:.0f} s in all\nreport: {page}")


def _summary(out: Path) -> str:
    import json

    return _figures(json.loads((out / "evaluation" / "evaluation.json").read_text()))


def _figures(result: Mapping[str, Any]) -> str:
    figures = {row["name"]: row["miou"] for row in result["results"]}
    return "mIoU on held-out images: " + "  ".join(f"{name} {_figure(miou)}" for name, miou in figures.items())


def _figure(miou: float | None) -> str:
    return "none: no pixel counted" if miou is None else f"{miou:.3f}"


def _ingest(options: argparse.Namespace) -> None:
    from curation.captions import IngestConfig, ingest

    files = {name: getattr(options, name) for name in ("removed", "subset") if getattr(options, name)}
    config = replace(with_settings(IngestConfig(), options.settings), **files)
    if options.plan:
        from flows.plan import plan_ingest, show

        print(show([plan_ingest(options.table, options.out, config)]))
        return
    _print_counts(ingest(options.table, options.out, config).counts)


def _subset(options: argparse.Namespace) -> None:
    from curation.subset import write_subset

    print(f"{options.out}: {write_subset(options.data_dir, options.out):,} captions")


def _card(options: argparse.Namespace) -> None:
    from curation.datacard import join_datacards

    print(join_datacards(options.data_dir).read_text(encoding="utf-8"))


def _parse(options: argparse.Namespace) -> None:
    from dataclasses import replace

    from curation.parse import ParseConfig, parse
    from flows.parts import map_by_ray

    if options.plan:
        from flows.plan import plan_parse, show

        print(show([plan_parse(options.data_dir)]))
        return
    config = with_settings(ParseConfig(), options.settings)
    counts = parse(options.data_dir, replace(config, nouns=config.nouns or options.nouns), map_by_ray).counts
    # Counts of each entity under each rule are for the data card.
    _print_counts({name: count for name, count in counts.items() if ": " not in name})


def _vocabulary(options: argparse.Namespace) -> None:
    from curation.vocabulary_mining import propose_vocabulary

    text = propose_vocabulary(options.data_dir, options.top, options.captions)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
        print(f"{options.out}: edit it, then parse with --set vocabulary={options.out}")
    else:
        print(text, end="")


def _download(options: argparse.Namespace) -> None:
    from curation.check import check_images
    from curation.download import DownloadConfig, download

    if options.verify:
        print(f"{options.data_dir / 'images'}: {check_images(options.data_dir)} shards, all whole")
        return
    if options.shards:
        from curation.adopt import adopt

        adopted = adopt(options.data_dir, options.shards, with_settings(DownloadConfig(), options.settings))
        _print_counts(adopted.counts)
        return
    config = with_settings(DownloadConfig(), options.settings)
    if options.plan:
        from flows.plan import plan_download, show

        print(show([plan_download(options.data_dir, config, image_root=options.image_root)]))
        return
    _print_counts(download(options.data_dir, config, options.image_root).counts)


def _pairs(options: argparse.Namespace) -> None:
    from curation.contact_sheet import SHEET_FILE
    from curation.pairs import PairsConfig, build_pairs

    build_pairs(options.data_dir, with_settings(PairsConfig(), options.settings))
    _print_card(options.data_dir / "pairs")
    sheet = options.data_dir / "pairs" / SHEET_FILE
    if sheet.exists():
        print(f"example pairs: {sheet}")


def _embed(options: argparse.Namespace) -> None:
    from curation.embeddings import EmbedConfig
    from flows.embed import embed

    config = replace(with_settings(EmbedConfig(), options.settings), of=options.of)
    manifest = embed.fn(options.data_dir, options.model, config, options.device, options.batch_size)
    _print_counts({"images": manifest.rows, **manifest.counts})


def _entities(options: argparse.Namespace) -> None:
    from curation.entities import EntityIndex

    index = EntityIndex(options.data_dir)
    if options.together:
        table = index.together(options.query)
    elif options.sample is not None:
        table = index.sample(options.sample, options.seed, options.query)
    elif options.count and options.query:
        print(index.count(options.query))
        return
    else:
        table = index.query(options.query, limit=options.limit) if options.query else index.counts()
    if options.format == "jsonl":
        print(table.to_pandas().to_json(orient="records", lines=True, force_ascii=False), end="")
    elif options.format == "csv":
        print(table.to_pandas().to_csv(index=False), end="")
    else:
        print(table.to_pandas().to_string(index=False, max_colwidth=80))


def _train(options: argparse.Namespace) -> None:
    from flows.recipes import with_benchmark
    from training.launch import train

    config, out = _recipe(options), options.out
    root = Path(config.benchmark_root) if config.benchmark_root else None
    phases = [with_benchmark(phase, config, root) for phase in (config.phase1, config.phase2) if phase is not None]
    model = None
    with ray_cluster():
        for phase in phases:
            model = train(options.data_dir, out / f"phase{phase.phase}", config.model, phase, model)
    print(f"model: {model}")


def _evaluate(options: argparse.Namespace) -> None:
    from functools import partial

    from evaluation.benchmarks import get_benchmark
    from evaluation.config import Protocol
    from evaluation.evaluate import evaluate
    from flows.parts import gpus_of, map_by_ray

    models = _named_models(options.models)
    if options.benchmark == IMAGENET:
        _classify(models, options)
        return
    benchmark = get_benchmark(options.benchmark)
    protocol = with_settings(Protocol.paper(benchmark.threshold) if options.paper else Protocol(), options.settings)
    result = evaluate(
        models,
        options.benchmark,
        options.root,
        options.out,
        protocol,
        device=options.device,
        unseen=None if options.unseen is None else [name.strip() for name in options.unseen.split(",")],
        with_baselines=not options.no_baselines,
        with_backgrounds=options.backgrounds,
        map_parts=partial(map_by_ray, num_gpus=gpus_of(options.device)) if options.ray else map,
    )
    for row in result["backgrounds"]:
        print(f"background by {row['rule']} ({row['setting']}): {_figure(row['miou'])}")
    print(f"{_figures(result)}\n{options.out / 'evaluation.json'}")


def _classify(models: dict[str, Path], options: argparse.Namespace) -> None:
    from evaluation.classify import RESULT, ClassificationConfig, classify

    config = with_settings(ClassificationConfig(), options.settings)
    result = classify(models, options.root, options.out, config, names=options.names, device=options.device)
    for row in result["results"]:
        print(f"{row['name']}  top-1 {row['top1']:.3f}  top-5 {row['top5']:.3f}")
    print(options.out / RESULT)


def _named_models(texts: Sequence[str]) -> dict[str, Path]:
    """Return folders by name, from FOLDER or NAME=FOLDER."""
    models: dict[str, Path] = {}
    for text in texts:
        name, _, folder = text.rpartition("=")
        name = name or Path(folder).name
        if name in models:
            raise ValueError(f"{models[name]} and {folder} are both called {name!r}; pass NAME=FOLDER")
        models[name] = Path(folder)
    return models


def _segment(options: argparse.Namespace) -> None:
    from evaluation.image_files import find_images
    from evaluation.segment_images import RESULT, default_protocol, segment_images, split_words, word_segmenter

    words, images, model = split_words(options.words), find_images(options.images), _load(options)
    protocol = with_settings(default_protocol(model), options.settings)
    result = segment_images(word_segmenter(model, words, protocol, options.background), words, images, options.out)
    for row in result["refused"]:
        print(f"left out: {row['image']}: {row['reason']}")
    print(f"{len(result['images']):,} images segmented, {len(result['refused']):,} left out: {options.out / RESULT}")


def _app(options: argparse.Namespace) -> None:
    from evaluation.segment_images import default_protocol
    from flows.app import serve_app

    model = _load(options)
    protocol = with_settings(default_protocol(model), options.settings)
    serve_app(model, protocol, options.background, options.port)


def _load(options: argparse.Namespace) -> OVSegmentor:
    import torch

    from model import OVSegmentor

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    return OVSegmentor.from_pretrained(options.model).to(device)


def _convert(options: argparse.Namespace) -> None:
    import yaml

    from model import CardFacts, load_groupvit, load_official, load_tokenizer

    tokenizer = load_tokenizer(options.tokenizer) if options.tokenizer else None
    if Path(options.source).is_file():
        found = yaml.safe_load(options.config.read_text()) if options.config else None
        settings = found and found.get("model", found)
        model: OVSegmentor = load_official(options.source, settings, options.text_config, tokenizer)
    else:
        model = load_groupvit(options.source, tokenizer)
    model.save_pretrained(options.out, CardFacts(data=f"Converted from {options.source}; its authors say more."))
    print(f"{model.load_report}\nmodel: {options.out}")


def _report(options: argparse.Namespace) -> None:
    from evaluation.compare import write_comparison
    from evaluation.report import write_report

    if len(options.runs) > 1:
        print(f"comparison: {write_comparison(options.runs, options.out)}")
    else:
        (run,) = options.runs
        print(f"report: {write_report(run, run.name)}")


def _recipe(options: argparse.Namespace) -> PipelineConfig:
    from flows.recipes import get_recipe

    return with_settings(get_recipe(options.recipe, options.seed), options.settings)


def _print_card(folder: Path) -> None:
    from curation.datacard import read_datacard

    card = read_datacard(folder)
    _print_counts(card["figures"])
    _print_counts({f"without: {reason}": count for reason, count in card["drops"].items()})


def _print_counts(counts: Mapping[str, int | float]) -> None:
    for name, count in counts.items():
        print(f"{count:>12,.4g}  {name}" if isinstance(count, float) else f"{count:>12,}  {name}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ovseg", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", dest="name")

    def add(name: str, command: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    _add_recipes(add)
    _add_captions(add)
    _add_images(add)
    _add_queries(add)
    _add_models(add)
    return parser


def _add_recipes(add: Add) -> None:
    add("recipes", _recipes, "list the recipes, with command and cost")

    run = add("run", _run, "run a recipe from captions to report; the same command again resumes it")
    _recipe_of(run)
    run.add_argument("--out", type=Path, help="folder of the run (default runs/RECIPE)")
    _plan(run)

    train = add("train", _train, "train both phases of a recipe on a data folder")
    _recipe_of(train)
    train.add_argument("--data", dest="data_dir", type=Path, required=True, metavar="DIR", help="data folder")
    train.add_argument("--out", type=Path, required=True, help="folder for phase1/ and phase2/")


def _add_captions(add: Add) -> None:
    ingest = add("ingest", _ingest, "read a caption table into DIR/captions")
    ingest.add_argument(
        "table",
        help="TSV, CSV, Parquet or JSON lines with url or image, and caption: a file, folder, glob, "
        "s3:// or http(s):// address, or cc12m or cc3m by name",
    )
    ingest.add_argument("--out", type=Path, required=True, metavar="DIR", help="data folder")
    ingest.add_argument(
        "--remove", dest="removed", metavar="FILE", help="take out rows with an address, domain or key of this list"
    )
    ingest.add_argument("--subset", metavar="FILE", help="keep the captions of this subset manifest only")
    _settings(ingest)
    _plan(ingest)

    parse = add("parse", _parse, "find the entities of DIR/captions; writes DIR/entities and DIR/postings")
    _data(parse)
    parse.add_argument("--nouns", action="store_true", help="write the spans of all nouns too")
    _settings(parse)
    _plan(parse)

    vocabulary = add("vocabulary", _vocabulary, "propose a vocabulary from the nouns of DIR/captions")
    _data(vocabulary)
    vocabulary.add_argument("--top", type=int, default=100, help="nouns to propose (default 100)")
    vocabulary.add_argument("--captions", type=int, default=100_000, help="captions to read (default 100,000)")
    vocabulary.add_argument("--out", type=Path, metavar="FILE", help="TOML file to write (default: print it)")


def _add_images(add: Add) -> None:
    download = add("download", _download, "fetch the images of DIR/entities into DIR/images")
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
    _settings(download)

    embed = add("embed", _embed, "embed the captions or images of DIR/images by a model, for pairs and searches")
    _data(embed)
    embed.add_argument("model", type=Path, help="folder of a saved model")
    embed.add_argument("--of", choices=("captions", "images"), default="captions", help="what to embed")
    embed.add_argument("--device", help="torch's name of a device (default: a GPU if there is one)")
    embed.add_argument("--batch-size", type=int, default=128, help="captions or images at once (default 128)")
    _settings(embed)

    pairs = add("pairs", _pairs, "draw cross-image partners into DIR/pairs")
    _data(pairs)
    _settings(pairs)


def _add_queries(add: Add) -> None:
    entities = add("entities", _entities, "count entities, or list the captions that match a query")
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

    subset = add("subset", _subset, "write which captions DIR/entities holds, so that others can rebuild it")
    _data(subset)
    subset.add_argument("--out", type=Path, required=True, metavar="FILE", help="manifest to write (Parquet)")

    _data(add("card", _card, "print what all stages read, kept and left out; writes DIR/datacard.md"))


def _add_models(add: Add) -> None:
    evaluate = add("evaluate", _evaluate, "measure models on a benchmark")
    evaluate.add_argument(
        "models", nargs="+", metavar="MODEL", help="folder of a saved model, or NAME=FOLDER; baselines go with the last"
    )
    evaluate.add_argument(
        "--benchmark", required=True, help=f"name of the benchmark (docs/evaluation.md), or {IMAGENET}"
    )
    evaluate.add_argument("--root", type=Path, required=True, help="folder of the benchmark")
    evaluate.add_argument("--out", type=Path, required=True, help="folder for evaluation.json and pictures")
    evaluate.add_argument("--paper", action="store_true", help="the published protocol in place of the default one")
    evaluate.add_argument("--backgrounds", action="store_true", help="compare rules for background, in the same pass")
    evaluate.add_argument("--unseen", metavar="NAMES", help="classes of the unseen figures (default: the usual split)")
    evaluate.add_argument("--no-baselines", action="store_true", help="measure the models alone: half the time")
    evaluate.add_argument("--names", type=Path, metavar="FILE", help=f"names of the classes, for {IMAGENET}")
    evaluate.add_argument("--device", help="torch's name of a device (default: a GPU if there is one)")
    evaluate.add_argument("--ray", action="store_true", help="parts of the images as Ray tasks")
    _settings(evaluate)

    segment = add("segment", _segment, "write the masks of images by any words: palette PNG, COCO json, overlay")
    _model(segment)
    segment.add_argument("images", nargs="+", metavar="IMAGE", help="image files, folders or quoted patterns")
    segment.add_argument(
        "--classes", dest="words", metavar="WORDS", required=True, help='what to look for, like "dog, grass"'
    )
    segment.add_argument(
        "--out", type=Path, default=Path("masks"), metavar="DIR", help="folder to write (default masks)"
    )
    _settings(segment)

    app = add("app", _app, "ask a model for words on a page of this machine")
    _model(app)
    app.add_argument("--port", type=int, default=7860, help="port on 127.0.0.1 (default 7860)")
    _settings(app)

    convert = add("convert", _convert, "turn weights of others into a model folder")
    convert.add_argument(
        "source", help="checkpoint file of OVSegmentor's authors, or folder or hub name of a GroupViT of transformers"
    )
    convert.add_argument("out", type=Path, metavar="DEST", help="model folder to write")
    convert.add_argument("--tokenizer", help="folder or hub name (the authors': distilbert-base-uncased)")
    convert.add_argument("--config", type=Path, metavar="YML", help="the authors' config (default: ViT-B, stage 2)")
    convert.add_argument("--text-config", help="folder or hub name of the text encoder's config (default: bert-base)")

    report = add("report", _report, "write RUN/report/index.html anew, or a page that compares several runs")
    report.add_argument(
        "runs",
        nargs="+",
        type=Path,
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
    command.add_argument("data_dir", type=Path, metavar="DIR", help="data folder")


def _model(command: argparse.ArgumentParser) -> None:
    command.add_argument("model", type=Path, help="folder of a saved model")
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
