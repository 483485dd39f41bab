"""The most memory that this process ever held."""

import torch

from training.metrics import peak_memory_mb


def peak_gb() -> float:
    """Return the largest resident memory of this process so far, in GB (2**30 bytes)."""
    return peak_memory_mb(torch.device("cpu")) * 1e6 / 2**30
