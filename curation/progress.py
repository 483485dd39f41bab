"""Progress of long steps: a bar on a terminal, and one log line per part with counts, rate and time left."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from types import TracebackType

from tqdm import tqdm

logger = logging.getLogger(__name__)


class Progress:
    """Reports the parts of one step as they finish.

    `total` is the size of the work in the unit of `done`, and that may be another than rows (bytes of a table).
    """

    def __init__(self, step: str, total: int) -> None:
        self.step = step
        self.total = total
        self.done = 0
        self.rows = 0
        self.started = time.monotonic()
        self._bar = tqdm(total=total, desc=step, disable=None, unit_scale=True, leave=False)

    def part(self, name: str, done: int, read: int, kept: int, drops: Mapping[str, int]) -> None:
        """Report one part: its share `done` of the total, rows read and kept, and reasons for the rest."""
        self.done += done
        self.rows += read
        self._bar.update(done)
        elapsed_s = max(time.monotonic() - self.started, 1e-9)
        left_s = elapsed_s * (self.total - self.done) / max(self.done, 1)
        reasons = "".join(f"  {reason} {count:,}" for reason, count in drops.items() if count)
        logger.info(
            "%s %s  kept %s/%s (%.1f %%)%s  %s/s  eta %02d:%02d",
            *(self.step, name, f"{kept:,}", f"{read:,}", 100 * kept / max(read, 1), reasons),
            *(f"{self.rows / elapsed_s:,.0f}", *divmod(round(left_s), 60)),
        )

    def __enter__(self) -> Progress:
        """Start the bar."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar."""
        self._bar.close()
