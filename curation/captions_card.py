"""The data card of captions/: rows read and kept, why others were left out, images, lengths of captions."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from curation.datacard import Figure, counted, write_datacard
from curation.removal import TAKEN_OUT, Removal
from curation.source import TableFile
from curation.subset import Subset
from curation.table import Layout

logger = logging.getLogger(__name__)

MOST_WORDS = 100
"""Captions with more words are counted with those of so many."""

_WORDS_PER_BAR = 5
_MOST_NAMED = 10


class CaptionsCard:
    """Sums over batches of rows that make the card."""

    def __init__(self) -> None:
        self.counts = Counter({"read": 0, "kept": 0})
        """rows read and kept, and the others by reason"""
        self._images = 0
        self._words = np.zeros(MOST_WORDS + 1, np.int64)
        self._entries_hit: set[str] = set()

    def add(self, captions: pa.Table, refused: pa.Table) -> dict[str, int]:
        """Count the rows of one more batch that are kept (`CAPTIONS`) and refused; return the latter by reason."""
        reasons = counted(refused["reason"])
        self.counts.update({"read": len(captions) + len(refused), "kept": len(captions), **reasons})
        self._images += int(pc.sum(pc.equal(captions["caption_id"], 0)).as_py() or 0)
        self._words += _words(captions["caption"])
        taken = refused.filter(pc.equal(refused["reason"], TAKEN_OUT))
        self._entries_hit.update(taken["content"].unique().to_pylist())
        return reasons

    def write(
        self,
        folder: Path,
        files: Sequence[TableFile],
        layouts: Sequence[Layout],
        removal: Removal | None,
        subset: Subset | None,
    ) -> None:
        """Write the card of captions that come from files; log what of the lists was not found."""
        num_words = np.arange(MOST_WORDS + 1)
        figures: dict[str, Figure] = {
            "table": files[0].name if len(files) == 1 else f"{len(files):,} files",
            "format": "; ".join(sorted({layout.description for layout in layouts})),
            "columns": "; ".join(sorted({", ".join(layout.columns) for layout in layouts})),
            "columns ignored": ", ".join(dict.fromkeys(name for each in layouts for name in each.ignored)) or "none",
            "rows read": self.counts["read"],
            "rows kept": self.counts["kept"],
            "kept share": self.counts["kept"] / max(self.counts["read"], 1),
            "images": subset.num_images if subset else self._images,
            "words per caption, mean": float(self._words @ num_words / max(self._words.sum(), 1)),
            "words per caption, median": int(np.searchsorted(self._words.cumsum(), (self._words.sum() + 1) // 2)),
            **self._of_removal(removal),
            **_of_subset(subset),
        }
        drops = {reason: count for reason, count in self.counts.items() if reason not in ("read", "kept")}
        write_datacard(folder, "Captions", figures, drops, {"caption lengths": _bars(self._words)})

    def _of_removal(self, removal: Removal | None) -> dict[str, Figure]:
        if removal is None:
            return {}
        missed = [entry for entry in removal.entries if entry not in self._entries_hit]
        if missed:
            logger.warning("removal: %d entries have no row: %s", len(missed), ", ".join(missed[:_MOST_NAMED]))
        return {"removal entries": len(removal.entries), "removal entries without a row": len(missed)}


def _of_subset(subset: Subset | None) -> dict[str, Figure]:
    if subset is None:
        return {}
    if subset.num_missing:
        logger.warning("subset: %s captions are not in the table", f"{subset.num_missing:,}")
    return {"captions of the subset not found": subset.num_missing}


def _words(captions: pa.ChunkedArray) -> npt.NDArray[np.int64]:
    """Return how many captions have 0, 1, ... words; the last count holds all longer ones."""
    lengths = pc.list_value_length(pc.utf8_split_whitespace(pc.utf8_trim_whitespace(captions))).to_numpy()
    return np.bincount(np.minimum(lengths, MOST_WORDS), minlength=MOST_WORDS + 1)


def _bars(words: npt.NDArray[np.int64]) -> list[dict[str, Any]]:
    """Return the lengths as rows of a table: words from-to, captions."""
    longest = int(np.flatnonzero(words)[-1]) if words.any() else 0
    return [
        {"words": f"{low}–{low + _WORDS_PER_BAR - 1}", "captions": int(words[low : low + _WORDS_PER_BAR].sum())}
        if low < MOST_WORDS
        else {"words": f"{MOST_WORDS} or more", "captions": int(words[MOST_WORDS])}
        for low in range(0, longest + 1, _WORDS_PER_BAR)
    ]
