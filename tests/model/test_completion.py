from __future__ import annotations

import pytest
import torch

from model.completion import EntityCompletion

FIRST = torch.zeros(2, dtype=torch.int64)


@pytest.mark.parametrize(("image_width", "text_width", "width"), [(12, 8, 8), (8, 12, 8), (8, 8, 8)])
def test_the_answer_has_the_narrower_width(image_width: int, text_width: int, width: int) -> None:
    completion = EntityCompletion(image_width, text_width, num_heads=2)
    answer = completion(
        torch.randn(3, 5, text_width), torch.tensor([0, 2, 4]), torch.ones(3, 5), torch.randn(3, 4, image_width)
    )
    assert answer.shape == (3, width)


def test_padding_changes_nothing() -> None:
    torch.manual_seed(0)
    completion = EntityCompletion(8, 8, num_heads=2)
    token, group = torch.randn(2, 5, 8), torch.randn(2, 4, 8)
    padded = torch.cat([token, 100 * torch.randn(2, 3, 8)], dim=1)
    mask = torch.ones(2, 8)
    mask[:, 5:] = 0
    torch.testing.assert_close(completion(padded, FIRST, mask, group), completion(token, FIRST, mask[:, :5], group))


def test_the_order_of_groups_changes_nothing_but_their_content_does() -> None:
    torch.manual_seed(0)
    completion = EntityCompletion(8, 8, num_heads=2)
    token, group, mask = torch.randn(2, 5, 8), torch.randn(2, 4, 8), torch.ones(2, 5)
    answer = completion(token, FIRST, mask, group)
    torch.testing.assert_close(completion(token, FIRST, mask, group.flip(1)), answer)
    assert not torch.allclose(completion(token, FIRST, mask, torch.randn(2, 4, 8)), answer, atol=1e-3)
