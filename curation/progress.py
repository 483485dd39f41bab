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

    `total` is the size of the work in the unit of `done`, and that may be another than rows (bytes of a table);
    `begun_at` is how much of it was done by an earlier run.
    """

    def __init__(self, step: str, total: int, begun_at: int = 0) -> None:
        self.step = step
        self.total = total
        self.begun_at = begun_at
        self.done = begun_at
        self.rows = 0
        self.started = time.monotonic()
        self._bar = tqdm(total=total, initial=begun_at, desc=step, disable=None, unit_scale=True, leave=False)

    def part(self, name: str, done: int, read: int, kept: int, drops: Mapping[str, int]) -> None:
        """Report one part: its share `done` of the total, rows read and kept, and reasons for the rest."""
        self.done += done
        self.rows += read
        self._bar.update(done)
        elapsed_s, left_s = self._times_s()
        reasons = "".join(f"  {reason} {count:,}" for reason, count in drops.items() if count)
        logger.info(
            "%s %s  kept %s/%s (%.1f %%)%s  %s/s  eta %02d:%02d",
            *(self.step, name, f"{kept:,}", f"{read:,}", 100 * kept / max(read, 1), reasons),
            *(f"{self.rows / elapsed_s:,.0f}", *divmod(round(left_s), 60)),
        )

    def moved(self, num_bytes: int, log_every: int) -> None:
        """Report bytes that have arrived, in the log whenever another `log_every` of them are there."""
        self.done += num_bytes
        self._bar.update(num_bytes)
        if self.done // log_every > (self.done - num_bytes) // log_every or self.done == self.total:
            elapsed_s, left_s = self._times_s()
            logger.info(
                "%s  %s/%s MB (%.1f %%)  %.1f MB/s  eta %02d:%02d",
                *(
                    self.step,
                    f"{self.done / 1e6:,.0f}",
                    f"{self.total / 1e6:,.0f}",
                    100 * self.done / (self.total or 1),
                ),
                *((self.done - self.begun_at) / elapsed_s / 1e6, *divmod(round(left_s), 60)),
            )

    def _times_s(self) -> tuple[float, float]:
        """Return the seconds since the start, and those that are left at this pace."""
        elapsed_s = max(time.monotonic() - self.started, 1e-9)
        return elapsed_s, elapsed_s * max(self.total - self.done, 0) / max(self.done - self.begun_at, 1)

    def __enter__(self) -> Progress:
        """Start the bar."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the bar."""
        self._bar.close()
