"""Configs as the command line and Prefect's forms see them: described, validated and changed by `a.b=c`."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, is_dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")
Work = TypeVar("Work", bound=Callable[..., Any])


def described(work: Work) -> Work:
    """Return a flow's function, whose form in Prefect then says what each setting means, and which takes no others."""
    for kind in get_type_hints(work).values():
        if is_dataclass(kind):
            kind.__pydantic_config__ = {"use_attribute_docstrings": True, "extra": "forbid"}  # type: ignore[union-attr]
    return work


def with_settings(config: T, settings: Iterable[str]) -> T:
    """Return the config with settings like `phase1.steps=50` applied; values are JSON, or else plain text.

    Raises: ValueError that names the setting, what was found and what is possible.
    """
    values: dict[str, Any] = asdict(config)  # type: ignore[call-overload]
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise ValueError(f"--set {setting}: expected NAME=VALUE, like --set phase1.steps=50")
        *parents, last = name.split(".")
        place: Any = values
        for i, parent in enumerate([*parents, last]):
            if not isinstance(place, dict) or parent not in place:
                known = ", ".join(place) if isinstance(place, dict) else "no settings below it"
                raise ValueError(f"--set {setting}: '{'.'.join(name.split('.')[:i]) or 'the config'}' has {known}")
            place = place[parent] if i < len(parents) else place
        place[last] = _value(text)
    try:
        return TypeAdapter(type(config)).validate_python(values)
    except ValidationError as error:
        lines = [f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}" for e in error.errors()]
        raise ValueError("; ".join(lines)) from error


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text
