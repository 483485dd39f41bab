"""Checkpoints of others: tensors come through, all else becomes inert, and every key is accounted for."""

from __future__ import annotations

import logging
import pickle
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

logger = logging.getLogger(__name__)

# What tensors are made of. Everything else in a pickle is a name that somebody wants called.
ALLOWED = {
    ("collections", "OrderedDict"),
    ("torch", "Size"),
    ("torch", "device"),
    ("torch._utils", "_rebuild_tensor"),
    ("torch._utils", "_rebuild_tensor_v2"),
    ("torch._utils", "_rebuild_parameter"),
    ("torch.serialization", "_get_layout"),
}


class Stub(dict[Any, Any]):
    """Stands for a foreign object: takes what its pickle gives it and does nothing."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002
        super().__init__()

    def __setstate__(self, state: Any) -> None:
        """Ignore the state."""

    def append(self, value: Any) -> None:
        """Ignore an element."""

    def extend(self, values: Any) -> None:
        """Ignore elements."""


class RestrictedUnpickler(pickle.Unpickler):
    """Resolves what tensors need; any other class or function becomes a stub."""

    def find_class(self, module: str, name: str) -> Any:
        """Return what is allowed, torch's number and storage types, or a stub."""
        if (module, name) in ALLOWED:
            return super().find_class(module, name)
        if module == "torch" and (name.endswith("Storage") or isinstance(getattr(torch, name, None), torch.dtype)):
            return getattr(torch, name)
        return type(name, (Stub,), {"__module__": module})


def _load(file: Any, **options: Any) -> Any:
    return RestrictedUnpickler(file, **options).load()


def read_checkpoint(path: Path | str) -> Any:
    """Return what `torch.save` wrote to the file, on the CPU, without running anything that it holds.

    Raises:
        ValueError: the file is no checkpoint.
    """
    restricted = SimpleNamespace(Unpickler=RestrictedUnpickler, load=_load, __name__="restricted_pickle")
    try:
        return torch.load(path, map_location="cpu", pickle_module=restricted, weights_only=False)
    except (pickle.UnpicklingError, EOFError, RuntimeError) as error:
        raise ValueError(
            f"{path}: expected a checkpoint written by torch.save, found something else: {error}"
        ) from error


def rename(
    state: Mapping[str, Tensor], renames: Sequence[tuple[str, str]], unused: Sequence[str]
) -> tuple[dict[str, Tensor], list[str]]:
    """Return the weights under other names, and the names of those that take part in no result.

    `renames` are patterns and what stands for them, applied in order; `unused` are patterns of names that are left out.
    """
    renamed, left_out = {}, []
    for key, value in state.items():
        if any(re.search(pattern, key) for pattern in unused):
            left_out.append(key)
            continue
        name = key
        for pattern, replacement in renames:
            name = re.sub(pattern, replacement, name)
        renamed[name] = value
    return renamed, left_out


@dataclass(frozen=True)
class LoadReport:
    """What became of every weight: of the source's, loaded or unused; of the model's, loaded or new."""

    source: str
    """where the weights came from"""
    loaded: tuple[str, ...]
    """weights of the model that the source gave"""
    new: tuple[str, ...]
    """weights of the model that the source does not have, left as they were"""
    unused: tuple[str, ...]
    """weights of the source that the model has no place for"""

    def __str__(self) -> str:
        parts = [f"{self.source}: {len(self.loaded)} weights loaded"]
        for name in ("new", "unused"):
            if keys := getattr(self, name):
                parts.append(f"{len(keys)} {name} ({', '.join(keys[:4])}{', ...' if len(keys) > 4 else ''})")
        return ", ".join(parts)


def load_weights(
    module: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    may_be_new: Collection[str] = (),
    unused: Collection[str] = (),
) -> LoadReport:
    """Fill the module with weights under its own names, and return the account of every key.

    Only the weights in `may_be_new` may be missing. `unused` are names of the source that were left out before.

    Raises:
        ValueError: weights missing, or of another shape; nothing has changed then.
    """
    own = module.state_dict()
    missing = sorted(set(own) - set(state) - set(may_be_new))
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(own[key].shape)}"
        for key in own
        if key in state and state[key].shape != own[key].shape
    ]
    if missing or wrong:
        raise ValueError(
            f"{source}: these weights are of another model than the config's: "
            f"{len(missing)} missing {missing[:5]}, {len(wrong)} of other shapes {wrong[:3]}"
        )
    loaded = [key for key in own if key in state]
    module.load_state_dict({key: state[key] for key in loaded}, strict=False)
    unknown = sorted(set(state) - set(own))
    new = tuple(key for key in own if key not in state)
    report = LoadReport(source, tuple(loaded), new, tuple(sorted({*unused, *unknown})))
    logger.log(logging.WARNING if unknown else logging.INFO, "%s", report)
    return report
