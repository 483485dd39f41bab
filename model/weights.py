"""A model on disk: config.json, model.safetensors, the tokenizer and a card."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from model.card import CardFacts, model_card
from model.checkpoint import load_weights
from model.config import ModelConfig, from_dict
from model.text import load_tokenizer

if TYPE_CHECKING:
    from model.ovsegmentor import OVSegmentor

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
CARD = "README.md"
TOKENIZER = "tokenizer_config.json"
FORMAT = 1


def save(model: OVSegmentor, folder: Path, facts: CardFacts | None = None) -> None:
    """Write the model to `folder`; each file is renamed into place, config.json last."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    state = {key: value.contiguous() for key, value in model.state_dict().items() if not key.startswith("momentum_")}
    config = {
        "format": FORMAT,
        "behaviour": model.behaviour,
        "model": asdict(model.config),
        "text_architecture": model.architecture.to_dict(),
    }
    with tempfile.TemporaryDirectory(prefix=".", dir=folder) as name:
        draft = Path(name)
        save_file(state, draft / WEIGHTS)
        if model.tokenizer is not None:
            model.tokenizer.save_pretrained(draft)
        (draft / CARD).write_text(model_card(model, facts or CardFacts()), encoding="utf-8")
        for path in sorted(draft.iterdir()):
            path.replace(folder / path.name)
        (draft / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
        (draft / CONFIG).replace(folder / CONFIG)


def load(cls: type[OVSegmentor], folder: Path) -> OVSegmentor:
    """Return the model in `folder`, in eval mode.

    Raises:
        ValueError: no model folder, or weights that do not fit its config.
    """
    from safetensors.torch import load_file
    from transformers import AutoConfig

    if not (folder / CONFIG).is_file() or not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder}: expected {CONFIG} and {WEIGHTS} as save_pretrained writes them, found no model")
    stored = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    if stored.get("format") != FORMAT or "model" not in stored:
        raise ValueError(f"{folder / CONFIG}: expected an OVSegmentor of format {FORMAT}, found another model's config")
    text = stored["text_architecture"]
    architecture = AutoConfig.for_model(**text)
    tokenizer = load_tokenizer(folder) if (folder / TOKENIZER).is_file() else None
    if stored["behaviour"] != cls.behaviour:
        cls = _behaving(stored["behaviour"])
    model = cls(from_dict(ModelConfig, stored["model"]), tokenizer, architecture)
    model.load_report = load_weights(model, load_file(folder / WEIGHTS), str(folder / WEIGHTS))
    return model.eval()


def _behaving(behaviour: str) -> type[OVSegmentor]:
    """Return the class of a stored model: its config does not say which defects it shares with the release."""
    from model.ovsegmentor import OVSegmentor
    from model.paper import PaperSegmentor

    known: dict[str, type[OVSegmentor]] = {kind.behaviour: kind for kind in (OVSegmentor, PaperSegmentor)}
    if behaviour not in known:
        raise ValueError(f"{CONFIG}: behaviour {behaviour!r} is none of {', '.join(known)}")
    return known[behaviour]
