"""Taking images out: a list of addresses, domains and keys that no row may have."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

TAKEN_OUT = "taken out on request"
"""Reason of a row that an entry takes out."""


class Removal:
    """The entries of a list, one a line: an address (URL or image path), a domain with all below it, or a key.

    Lines that begin with # are comments.

    Raises: ValueError that names the line that is none of these.
    """

    def __init__(self, path: Path) -> None:
        lines = (line.strip() for line in path.read_text(encoding="utf-8").splitlines())
        self.entries = dict.fromkeys(
            _entry(path, number, line) for number, line in enumerate(lines, start=1) if line and line[0] != "#"
        )

    def entry_of(self, address: str, key: int) -> str | None:
        """Return the entry by which a row is to be taken out, or None."""
        return next((name for name in (address, str(key), *_domains(address)) if name in self.entries), None)


def _entry(path: Path, number: int, line: str) -> str:
    if any(character.isspace() for character in line):
        raise ValueError(f"{path} line {number}: found '{line}'; expected one address, domain or key on a line")
    return line if "/" in line else line.lower()


def _domains(address: str) -> list[str]:
    """Return the host of an address and the domains that it lies in: a.b.c, b.c, c."""
    try:
        host = (urlsplit(address).hostname or "").rstrip(".")
    except ValueError:
        return []
    labels = host.split(".") if host else []
    return [".".join(labels[at:]) for at in range(len(labels))]
