"""The commands of `ovseg` about trained models: what each does with its parsed options; its text is its help."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.settings import with_settings

if TYPE_CHECKING:
    from model import OVSegmentor

IMAGENET = "imagenet"
"""the benchmark that has no masks"""

# Rooms are imported by the command that needs them: `ovseg --help` and `ovseg entities` should not load torch.


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
        print(f"background by {row['rule']} ({row['setting']}): {figure(row['miou'])}")
    print(f"{figures(result)}\n{options.out / 'evaluation.json'}")


def figures(result: Mapping[str, Any]) -> str:
    """Return the mIoU of each result of an evaluation, as a line."""
    figures = {row["name"]: row["miou"] for row in result["results"]}
    return "mIoU on held-out images: " + "  ".join(f"{name} {figure(miou)}" for name, miou in figures.items())


def figure(miou: float | None) -> str:
    """Return an mIoU as text."""
    return "none: no pixel counted" if miou is None else f"{miou:.3f}"


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
