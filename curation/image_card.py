"""The data card of images/: causes, hosts, sizes, aspect ratios and the dead share, in figures and in a picture."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from curation.datacard import counted, write_datacard
from curation.gather import hosts
from curation.manifest import Part, replacing

PICTURE = "datacard.svg"

OURS = frozenset(
    {"opted_out", "private_address", "too_large", "too_many_pixels", "outside_root", "no_file", "benchmark_image"}
)
"""Causes that say nothing of the address: it lives, and the image is left out for a reason of ours."""

_SIDES = (64, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 4096)
_RATIOS = (0.25, 0.5, 0.67, 0.8, 0.95, 1.05, 1.25, 1.5, 1.8, 2.5, 4.0)
_MOST_HOSTS = 20
_BAR, _LEFT, _WIDTH, _GAP = 16, 150, 470, 34


class ImageCard:
    """Sums over outcomes (`curation.gather.outcomes`) that make the card."""

    def __init__(self) -> None:
        self.images = 0
        self.stored = 0
        self.causes: Counter[str] = Counter()
        self._asked: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._rounds: Counter[int] = Counter()
        self._sides = np.zeros(len(_SIDES) + 1, np.int64)
        self._ratios = np.zeros(len(_RATIOS) + 1, np.int64)
        self._left = 0
        self._bytes = 0
        self._pixels = 0

    def add(self, outcome: pa.Table) -> None:
        """Count one more table of outcomes."""
        is_stored = outcome["cause"].is_null()
        stored = outcome.filter(is_stored)
        self.images += len(outcome)
        self.stored += len(stored)
        self.causes.update(counted(outcome["cause"]))
        self._asked.update(counted(hosts(outcome)))
        self._failed.update(counted(hosts(outcome.filter(pc.invert(is_stored)))))
        self._rounds.update(counted(stored["rounds"]))
        known = stored.filter(stored["original_width"].is_valid())
        width, height = (known[f"original_{name}"].to_numpy() for name in ("width", "height"))
        self._sides += np.bincount(np.digitize(np.minimum(width, height), _SIDES), minlength=len(self._sides))
        self._ratios += np.bincount(np.digitize(width / height, _RATIOS), minlength=len(self._ratios))
        self._left += len(stored) - stored["path"].null_count
        self._bytes += int(pc.sum(stored["length"]).as_py() or 0)
        self._pixels += int((stored["width"].to_numpy() * stored["height"].to_numpy().astype(np.int64)).sum())

    def write(self, images_dir: Path, parts: Sequence[Part], groups: pa.Table) -> None:
        """Write datacard.json, datacard.md and datacard.svg; `groups` are the near-duplicates."""
        dead = sum(count for cause, count in self.causes.items() if cause not in OURS)
        figures = {
            "images": self.images,
            "stored": self.stored,
            "success rate": self.stored / self.images,
            "dead share": dead / self.images,
            "hosts": len(self._asked),
            "hosts that gave no image": sum(self._failed[host] == count for host, count in self._asked.items()),
            "stored in a later round": sum(count for rounds, count in self._rounds.items() if rounds > 1),
            "left in their folder": self._left,
            "images with a near-duplicate": len(groups),
            "groups of near-duplicates": len(groups["group"].unique()),
            "shards": len(parts),
            "bytes of shards": sum((images_dir / part.name).stat().st_size for part in parts),
            "mean bytes of a stored image": self._bytes / self.stored,
            "mean pixels of a stored image": self._pixels / self.stored,
        }
        sides = dict(zip(_ranges(_SIDES), self._sides.tolist(), strict=True))
        ratios = dict(zip(_ranges(_RATIOS), self._ratios.tolist(), strict=True))
        frequent: list[dict[str, Any]] = [
            {"host": host, "images": count, "failed": self._failed[host]}
            for host, count in sorted(self._asked.items(), key=lambda each: (-each[1], each[0]))[:_MOST_HOSTS]
        ]
        write_datacard(
            images_dir,
            "Images",
            figures,
            dict(self.causes),
            {
                "Most frequent hosts": frequent,
                "Shorter side as fetched (pixels)": _rows("pixels", sides),
                "Aspect ratio as fetched (width / height)": _rows("ratio", ratios),
                "Rounds until stored": _rows("rounds", {str(key): self._rounds[key] for key in sorted(self._rounds)}),
            },
            PICTURE,
        )
        charts = {
            "Outcome": {"stored": self.stored, **dict(self.causes.most_common())},
            "Shorter side as fetched (pixels)": sides,
            "Aspect ratio as fetched (width / height)": ratios,
            "Most frequent hosts": {row["host"]: row["images"] for row in frequent[:10]},
        }
        with replacing(images_dir / PICTURE) as path:
            path.write_text(_bars(charts), encoding="utf-8")


def _ranges(edges: Sequence[float]) -> list[str]:
    inner = [f"{low:g} to {high:g}" for low, high in pairwise(edges)]
    return [f"below {edges[0]:g}", *inner, f"{edges[-1]:g} and more"]


def _rows(name: str, counts: dict[str, int]) -> list[dict[str, str | int]]:
    return [{name: label, "images": count} for label, count in counts.items()]


def _bars(charts: dict[str, dict[str, int]]) -> str:
    """Return an SVG with a chart of horizontal bars under each title."""
    lines, top = [], 0
    for title, counts in charts.items():
        if not counts:
            continue
        lines.append(f'<text x="8" y="{top + 22}" class="title">{escape(title)}</text>')
        top += _GAP
        most = max(counts.values()) or 1
        for label, count in counts.items():
            width = (_WIDTH - _LEFT - 90) * count / most
            lines.append(
                f'<text x="{_LEFT - 6}" y="{top + 12}" text-anchor="end">{escape(label)}</text>'
                f'<rect x="{_LEFT}" y="{top + 2}" width="{width:.1f}" height="{_BAR - 4}"/>'
                f'<text x="{_LEFT + width + 6:.1f}" y="{top + 12}">{count:,}</text>'
            )
            top += _BAR
    style = "text{font:11px sans-serif;fill:#333}.title{font-weight:bold}rect{fill:#4878a8}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top + 10}" width="{_WIDTH}">'
        f'<style>{style}</style><rect width="100%" height="100%" style="fill:#fff"/>{"".join(lines)}</svg>\n'
    )
