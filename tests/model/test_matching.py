from __future__ import annotations

from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from model.matching import match


def test_the_cheapest_pairing_wins_over_the_greedy_one() -> None:
    # Greedy would take 0 for the first row and pay 10 for the second: 10 instead of 1 + 2.
    cost = torch.tensor([[[0.0, 1.0], [2.0, 10.0]]])
    assert match(cost).tolist() == [[1, 0]]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5))
def test_no_permutation_is_cheaper(seed: int, size: int) -> None:
    cost = torch.rand(2, size, size, generator=torch.Generator().manual_seed(seed))
    found = cost.gather(2, match(cost)[..., None]).sum(dim=(1, 2))
    for sample, total in zip(cost, found, strict=True):
        best = min(sum(sample[row, column] for row, column in enumerate(order)) for order in permutations(range(size)))
        assert torch.isclose(total, torch.as_tensor(best))


def test_a_cost_that_is_not_finite_is_refused() -> None:
    with pytest.raises(ValueError, match="found a cost that is not finite"):
        match(torch.tensor([[[float("nan")]]]))
