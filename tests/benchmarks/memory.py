"""The most memory that this process ever held."""

import re
from pathlib import Path


def peak_gb() -> float:
    """Return the largest resident memory of this process so far, in GB (2**30 bytes).

    Not `ru_maxrss`: that one starts at the size of the process that started this one.
    """
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return int(peak[1]) / 2**20
