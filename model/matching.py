"""Bipartite matching of masks."""

from __future__ import annotations

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def match(cost_BGG: Tensor) -> Tensor:
    """Return for each row the column it is matched with, so that the sum of costs is least in each sample.

    Shapes: cost_BGG [B, G, G] -> int64 [B, G], a permutation in each row.

    Raises:
        ValueError: a cost is not finite.
    """
    cost = cost_BGG.detach().float().cpu().numpy()
    if not np.isfinite(cost).all():
        raise ValueError("match: found a cost that is not finite; an image or a weight is NaN or infinite")
    columns = np.stack([linear_sum_assignment(sample)[1] for sample in cost])
    return torch.from_numpy(columns).to(cost_BGG.device)
