"""Reading checkpoints of others: tensors come through, whatever else they hold becomes inert."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

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
