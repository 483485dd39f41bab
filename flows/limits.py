"""What is not done twice at a time, by Prefect's global concurrency limits, and how long a stage may take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext

DOWNLOADS = "downloads"
GPU_TRAININGS = "gpu-trainings"
LIMITS = {DOWNLOADS: 1, GPU_TRAININGS: 1}
"""name of a limit -> slots that `ovseg up` gives it: hosts are to be asked politely, GPUs belong to one training"""
LEASE_S = 60.0
"""seconds after which the slot of a killed run is free again"""

HOUR_S, DAY_S = 3600.0, 86_400.0
"""units of a stage's longest time, which is generous: it ends what hangs, not what is slow"""


@contextmanager
def slot(name: str, is_needed: bool = True) -> Iterator[None]:
    """Hold a slot of the limit, waiting for it. Outside a flow run, or where no such limit is, nobody waits."""
    with concurrency(name, lease_duration=LEASE_S) if is_needed and FlowRunContext.get() else nullcontext():
        yield
