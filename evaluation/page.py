"""Pages that need nothing but themselves: templates, numbers for people, pictures inside the page."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render(template: str, **values: Any) -> bytes:
    """Return a page of this folder's templates."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "signed": signed, "figure": figure}
    return environment.get_template(template).render(**values).encode()


def percent(share: float | None) -> str:
    """Return a share as a percentage with one digit, a dash for None."""
    return "–" if share is None else f"{100 * share:.1f}"


def signed(difference: float | None) -> str:
    """Return a difference of shares in percentage points with its sign, a dash for None."""
    if difference is None:
        return "–"
    text = percent(abs(difference))
    return text if text == "0.0" else f"{'+' if difference > 0 else '−'}{text}"


def figure(value: Any, name: str = "") -> str:
    """Return a figure for people; its name tells shares and sizes in bytes."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    if name.endswith(("share", "rate")) and 0 <= value <= 1:
        return f"{percent(value)} %"
    if "bytes" in name:
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def picture_uri(folder: Path, name: str) -> str:
    """Return a picture of a folder as an address that holds it.

    Raises: ValueError when the name leads out of the folder: a page must not carry other files of this machine.
    """
    picture = folder / name
    if not picture.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{folder}: names the picture {name!r}, which is none of its files; make the folder anew")
    kind = picture.suffix[1:].replace("jpg", "jpeg")
    return f"data:image/{kind};base64,{base64.b64encode(picture.read_bytes()).decode()}"


def read_json(path: Path) -> Any:
    """Return what a JSON file holds, None where there is none."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None
