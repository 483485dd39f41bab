"""The model that a phase starts from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from curation.images import Samples
from evaluation.templates import FULL_80
from model import ModelConfig, OVSegmentor, initial, learn_wordpiece, load_tokenizer
from model.workers import worker_rank
from training.config import TrainConfig
from training.phase import Phase
from training.state import writing_folder
from training.workers import wait_for_all

TOKENIZER = "tokenizer"


def start_model(phase: Phase, samples: Samples) -> OVSegmentor:
    """Return the model as the phase finds it: new, as a function of config and seed, or phase 1's made ready."""
    model, config = phase.model, phase.config
    if phase.init_from is not None:
        return continue_model(phase.init_from, model)
    if model.text.pretrained is not None:
        return initial(model, load_tokenizer(model.text.pretrained), config.seed)
    if worker_rank() == 0:
        learn_tokenizer(samples, phase.run_dir, config)
    wait_for_all()
    return initial(model, load_tokenizer(phase.run_dir / TOKENIZER), config.seed)


def continue_model(folder: Path, model: ModelConfig) -> OVSegmentor:
    """Return the model in `folder` made ready for phase 2: losses of `model`, text frozen, momentum encoder copied.

    Raises: ValueError when the folder's model is not the one that `model` describes.
    """
    before = OVSegmentor.from_pretrained(folder)
    if (found := replace(before.config, loss=model.loss)) != model:
        raise ValueError(f"{folder}: holds the model {found}; phase 2 was asked for {model}; only losses may differ")
    after = OVSegmentor(model, before.tokenizer, before.architecture)
    missing, unknown = after.load_state_dict(before.state_dict(), strict=False)
    if missing or unknown:
        raise ValueError(
            f"{folder}: its losses are {before.config.loss} and do not fit phase 2's {model.loss}: "
            f"weights missing {missing[:3]}, not wanted {unknown[:3]}; keep loss.entity on or off in both phases"
        )
    after.freeze_text()
    after.start_momentum()
    return after


def learn_tokenizer(samples: Samples, run_dir: Path, config: TrainConfig) -> None:
    """Learn word pieces from all captions, templates and prompts into the run's folder, if they are not there yet."""
    if (run_dir / TOKENIZER).exists():
        return
    tokenizer: Any = learn_wordpiece(_texts(samples, config), config.tokenizer_size)
    with writing_folder(run_dir / TOKENIZER) as folder:
        tokenizer.save_pretrained(folder)


def entities_named(samples: Samples) -> list[str]:
    """Return all entities that the captions name, sorted."""
    captions = samples.table["captions"].combine_chunks() if len(samples) else pa.array([])
    mentions = pc.list_flatten(pc.struct_field(pc.list_flatten(captions), "mentions"))
    return sorted(pc.unique(pc.struct_field(mentions, "entity")).to_pylist())


def _texts(samples: Samples, config: TrainConfig) -> Iterator[str]:
    yield from FULL_80
    yield from (config.prompts.template, config.prompts.extra_template, *config.prompts.extra_nouns)
    for row in range(len(samples)):
        for caption in samples.captions(row):
            yield caption.text
            yield from (mention.entity for mention in caption.mentions)
