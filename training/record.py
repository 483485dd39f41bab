"""What a run tells about itself: settings that must not change under it, and run.json, its last file."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from model import CardFacts, ModelConfig, OVSegmentor
from training.config import TrainConfig

PACKAGES = ("torch", "transformers", "timm", "numpy", "pyarrow")


def run_settings(model: ModelConfig, config: TrainConfig, inputs: dict[str, str]) -> dict[str, Any]:
    """Return what decides the run's weights; a run is only resumed under equal settings.

    Validation is not among them: it only looks on.
    """
    train = asdict(replace(config, validation=None))
    return {"phase": config.phase, "model": asdict(model), "train": train, "inputs": inputs}


def run_record(
    settings: dict[str, Any], model: OVSegmentor, steps: int, undecodable: dict[int, str], train_time_s: float
) -> dict[str, Any]:
    """Return the content of a finished run's run.json."""
    return {
        **settings,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in PACKAGES}},
        "seed": settings["train"]["seed"],
        "commit": git_commit(),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "steps": steps,
        "skipped": len(undecodable),
        "skipped_keys": {str(key): reason for key, reason in sorted(undecodable.items())},
        "train_time_s": round(train_time_s, 1),
    }


def card_facts(record: dict[str, Any], num_images: int, losses: dict[str, float]) -> CardFacts:
    """Return what a trained model's card says beyond its config: data, recipe, and the losses of its last step."""
    train = record["train"]
    data = (
        f"{num_images:,} images with captions (samples.arrow, digest {record['inputs']['samples']}). No mask was read."
    )
    recipe = {
        "phase": record["phase"],
        "steps": f"{record['steps']:,} of {train['batch_size']} images",
        "optimiser": f"AdamW, learning rate {train['optim']['lr']}, weight decay {train['optim']['weight_decay']}",
        "losses": ", ".join(f"{name} {value}" for name, value in record["model"]["loss"].items()),
        "augmentation": train["augment"]["kind"],
        "seed": record["seed"],
        "commit": record["commit"],
    }
    return CardFacts(data, recipe, {f"{name} loss, last step": value for name, value in losses.items()})


def git_commit() -> str | None:
    """Return the commit of this code, with + when files differ from it; None outside a git checkout."""
    here = Path(__file__).resolve().parent
    try:
        commit, changes = (
            subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True).stdout.strip()
            for words in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return commit + ("+" if changes else "")
