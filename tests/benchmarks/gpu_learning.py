"""One real training run on a GPU: ViT-S from scratch on drawn scenes, with its mIoU on the way and a sheet at the end.

    ovseg run demo --out runs/scenes-112 --set scenes.image_size=112 --set download.image_size=112 \\
        --set scenes.level=textured --set phase1.steps=1     # on any machine: for its data/ and scenes/benchmark
    python -m tests.benchmarks.gpu_learning runs/scenes-112 OUT --steps 6000    # where torch's packages are enough

What it can show is that the published block learns places from captions without DINO's weights, or that it does not;
it says nothing about photographs. No mask is learned from; the validation scenes are others than those of the figure.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from dataclasses import replace
from pathlib import Path

import torch

from curation.scenes_drawing import GROUNDS
from evaluation.config import Protocol
from evaluation.evaluate import evaluate
from model import LossConfig, ModelConfig, OVSegmentor, initial
from model.presets import ovsegmentor_vit_s
from training.config import (
    AugmentConfig,
    ComputeConfig,
    LaunchConfig,
    OptimConfig,
    PromptConfig,
    TrainConfig,
    ValidationConfig,
)
from training.loop import train_here
from training.phase import Phase

PROTOCOL = Protocol(
    templates=("a photo of a {}",), background="words", background_words=GROUNDS, background_templates=("the {}",)
)


def vit_s(side: int, patch: int) -> ModelConfig:
    """Return the ViT-S recipe's model from random weights, with a text tower that 8,000 captions can teach."""
    recipe = ovsegmentor_vit_s()
    image = replace(recipe.image, image_size=side, patch_size=patch, pretrained=None)
    text = replace(recipe.text, model_type="bert", pretrained=None, width=256, num_layers=4, num_heads=4)
    loss = LossConfig(nouns=1.0, noun_pooling="groups", share_positives=True)
    return replace(recipe, image=image, text=text, loss=loss)


def phases(run: Path, options: argparse.Namespace) -> tuple[TrainConfig, TrainConfig]:
    """Return both phases."""
    on_gpu = torch.cuda.is_available()
    first = TrainConfig(
        seed=options.seed,
        steps=options.steps,
        batch_size=options.batch,
        augment=AugmentConfig(kind="crop", crop_scale=(0.6, 1.0)),
        prompts=PromptConfig(extra_nouns=GROUNDS),
        optim=OptimConfig(lr=5e-4, warmup_steps=options.steps // 20),
        loader_workers=8 if on_gpu else 1,
        checkpoint_every=max(1, options.steps // 10),
        validation=ValidationConfig(
            every=max(1, options.steps // 10), benchmark="scenes", root=str(run / "scenes/benchmark"), protocol=PROTOCOL
        ),
        compute=ComputeConfig(precision="bfloat16" if on_gpu else "float32", compile=on_gpu),
        launch=LaunchConfig(use_gpu=on_gpu),
    )
    second = replace(first, phase=2, steps=max(1, options.steps // 8), optim=OptimConfig(lr=1e-4, warmup_steps=0))
    return first, second


def main() -> None:
    """Train, measure, and print the curve and the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="run on drawn scenes, for its data/ and scenes/benchmark")
    parser.add_argument("out", type=Path, help="folder for phase1/, phase2/ and evaluation/")
    parser.add_argument("--steps", type=int, default=6000, help="of phase 1; phase 2 has an eighth (default 6000)")
    parser.add_argument("--batch", type=int, default=256, help="images of a step (default 256)")
    parser.add_argument("--side", type=int, default=112, help="of the images, in pixels (default 112)")
    parser.add_argument("--patch", type=int, default=8, help="side of a patch, in pixels (default 8)")
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default 0)")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", stream=sys.stdout)
    run, out = options.run.resolve(), options.out
    model, (first, second) = vit_s(options.side, options.patch), phases(run, options)
    phase1 = train_here(Phase(run / "data", out / "phase1", model, first))
    phase2 = train_here(Phase(run / "data", out / "phase2", model, second, phase1))
    trained = OVSegmentor.from_pretrained(phase2)
    untrained = initial(trained.config, trained.tokenizer, options.seed)
    models = {"untrained": untrained, "phase1": phase1, "phase2": phase2}
    found = evaluate(models, "scenes", run / "scenes" / "benchmark", out / "evaluation", PROTOCOL)
    for name in ("phase1", "phase2"):
        lines = [json.loads(line) for line in (out / name / "metrics.jsonl").read_text().splitlines()]
        curve = {line["step"]: round(line["validation_miou"], 3) for line in lines if "validation_miou" in line}
        print(f"{name}, validation mIoU by step: {curve}")
    for row in found["results"]:
        print(f"{row['name']:24}{row['miou']:.3f}")


if __name__ == "__main__":
    main()
