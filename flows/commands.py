"""What each command of `ovseg` does with its parsed options; its text is the command's help."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.cluster import prefect_server, ray_cluster
from flows.settings import with_settings
from flows.storage import DATACARDS, Needs, working_copy

if TYPE_CHECKING:
    from flows.config import PipelineConfig
    from model import OVSegmentor

IMAGENET = "imagenet"
"""the benchmark that has no masks"""

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
    import json

    return _figures(json.loads((out / "evaluation" / "evaluation.json").read_text()))


def _figures(result: Mapping[str, Any]) -> str:
    figures = {row["name"]: row["miou"] for row in result["results"]}
    return "mIoU on held-out images: " + "  ".join(f"{name} {_figure(miou)}" for name, miou in figures.items())


def _figure(miou: float | None) -> str:
    return "none: no pixel counted" if miou is None else f"{miou:.3f}"


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


def ingest(options: argparse.Namespace) -> None:
    """Read a caption table into DIR/captions.

    Examples:
        ovseg ingest captions.tsv --out data
        ovseg ingest cc12m --out cc12m --plan
        ovseg ingest captions.tsv --remove removed.txt --out cleaned
    """
    from curation.captions import IngestConfig, ingest

    files = {name: getattr(options, name) for name in ("removed", "subset") if getattr(options, name)}
    config = replace(with_settings(IngestConfig(), options.settings), **files)
    if options.plan:
        from flows.plan import plan_ingest, show

        print(show([plan_ingest(options.table, options.out, config)]))
        return
    _print_counts(ingest(options.table, options.out, config).counts)


def subset(options: argparse.Namespace) -> None:
    """Write which captions DIR/entities holds, so that others can rebuild it.

    Examples:
        ovseg subset data --out subset.parquet
    """
    from curation.subset import write_subset

    print(f"{options.out}: {write_subset(options.data_dir, options.out):,} captions")


def card(options: argparse.Namespace) -> None:
    """Print what all stages read, kept and left out; writes DIR/datacard.md.

    Examples:
        ovseg card data
    """
    from curation.datacard import join_datacards

    print(join_datacards(options.data_dir).read_text(encoding="utf-8"))


def parse(options: argparse.Namespace) -> None:
    """Find the entities of DIR/captions; writes DIR/entities and DIR/postings.

    Examples:
        ovseg parse data
        ovseg parse data --set vocabulary=mine.toml --nouns
    """
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


def vocabulary(options: argparse.Namespace) -> None:
    """Propose a vocabulary from the nouns of DIR/captions.

    Examples:
        ovseg vocabulary data --top 50 --out mine.toml
    """
    from curation.vocabulary_mining import propose_vocabulary

    text = propose_vocabulary(options.data_dir, options.top, options.captions)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
        print(f"{options.out}: edit it, then parse with --set vocabulary={options.out}")
    else:
        print(text, end="")


def download(options: argparse.Namespace) -> None:
    """Fetch the images of DIR/entities into DIR/images.

    Examples:
        ovseg download data
        ovseg download data --image-root photos --set in_place=true
        ovseg download data --verify
    """
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
    run_shards = None
    if options.ray:
        from flows.parts import shards_by_ray

        run_shards = shards_by_ray(config)
    _print_counts(download(options.data_dir, config, options.image_root, run_shards).counts)


def pairs(options: argparse.Namespace) -> None:
    """Draw cross-image partners into DIR/pairs.

    Examples:
        ovseg pairs data --set kind=similar
    """
    from curation.contact_sheet import SHEET_FILE
    from curation.pairs import PairsConfig, build_pairs

    build_pairs(options.data_dir, with_settings(PairsConfig(), options.settings))
    _print_card(options.data_dir / "pairs")
    sheet = options.data_dir / "pairs" / SHEET_FILE
    if sheet.exists():
        print(f"example pairs: {sheet}")


def embed(options: argparse.Namespace) -> None:
    """Embed the captions or images of DIR/images by a model, for pairs and searches.

    Examples:
        ovseg embed data runs/demo/phase2/model --of images
    """
    from curation.embeddings import EmbedConfig
    from flows.embed import embed

    config = replace(with_settings(EmbedConfig(), options.settings), of=options.of)
    manifest = embed.fn(options.data_dir, options.model, config, options.device, options.batch_size)
    _print_counts({"images": manifest.rows, **manifest.counts})


def entities(options: argparse.Namespace) -> None:
    """Count entities, or list the captions that match a query.

    Examples:
        ovseg entities data
        ovseg entities data "cat and (sofa or bed) and not dog" --format jsonl
    """
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


def evaluate(options: argparse.Namespace) -> None:
    """Measure models on a benchmark.

    Examples:
        ovseg evaluate runs/demo/phase2/model --benchmark voc --root VOC2012 --out voc
        ovseg evaluate a=a/model b=b/model --benchmark ade20k --root ADEChallengeData2016 --out ade --backgrounds
    """
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


def segment(options: argparse.Namespace) -> None:
    """Write the masks of images by any words: palette PNG, COCO json, overlay.

    Examples:
        ovseg segment runs/demo/phase2/model photos --classes "house, boat" --background "sky, grass"
        ovseg segment runs/demo/phase2/model photo.jpg --classes "house, boat" --set threshold=0.9 --out strict
    """
    from evaluation.image_files import find_images
    from evaluation.segment_images import RESULT, default_protocol, segment_images, split_words, word_segmenter

    words, images, model = split_words(options.words), find_images(options.images), _load(options)
    protocol = with_settings(default_protocol(model), options.settings)
    result = segment_images(word_segmenter(model, words, protocol, options.background), words, images, options.out)
    for row in result["refused"]:
        print(f"left out: {row['image']}: {row['reason']}")
    print(f"{len(result['images']):,} images segmented, {len(result['refused']):,} left out: {options.out / RESULT}")


def app(options: argparse.Namespace) -> None:
    """Ask a model for words on a page of this machine.

    Examples:
        ovseg app runs/demo/phase2/model --port 8000
    """
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


def convert(options: argparse.Namespace) -> None:
    """Turn weights of others into a model folder.

    Examples:
        ovseg convert ovsegmentor.pth weights --tokenizer distilbert-base-uncased
        ovseg convert nvidia/groupvit-gcc-yfcc weights
    """
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
