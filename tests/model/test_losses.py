from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from model.losses import contrastive, mask_consistency, multi_label_contrastive, pairwise_dice, same_set_positives

SCALE = torch.tensor(5.0)


def features(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def plain_cosine(a: Tensor, b: Tensor) -> Tensor:
    return (a @ b) / (a.norm() * b.norm())


def plain_one_way(queries: Tensor, candidates: Tensor, labels: Tensor) -> Tensor:
    """Mean over the queries that have a label of the mean surprise at their labelled candidates."""
    terms = []
    for query, label in zip(queries, labels, strict=True):
        weights = torch.stack([(SCALE * plain_cosine(query, candidate)).exp() for candidate in candidates])
        surprise = [-(weights[column] / weights.sum()).log() for column in range(len(candidates)) if label[column]]
        if surprise:
            terms.append(sum(surprise) / len(surprise))
    return sum(terms) / len(terms)


def plain_both_ways(images: Tensor, texts: Tensor, labels: Tensor) -> Tensor:
    return (plain_one_way(images, texts, labels) + plain_one_way(texts, images, labels.T)) / 2


def plain_mask_consistency(prediction: Tensor, target: Tensor, affinity: Tensor, ratio: float) -> Tensor:
    """Sample by sample: scale, cut, try every pairing, average the dice of the groups that fit the entity best."""
    terms = []
    for masks, others, closeness in zip(prediction, target, affinity, strict=True):
        masks = [(mask - mask.min()) / (mask.max() - mask.min()) for mask in masks]
        others = [((other - other.min()) / (other.max() - other.min()) >= 0.6).float() for other in others]
        size = len(masks)

        def dice(a: int, b: int, masks: list[Tensor] = masks, others: list[Tensor] = others) -> Tensor:
            overlap, area = (masks[a] * others[b]).sum(), masks[a].sum() + others[b].sum()
            return 1 - (2 * overlap + 1) / (area + 1)

        costs = {
            order: sum(dice(a, b).item() for a, b in enumerate(order)) for order in permutations(range(size))
        }  # fmt: skip
        best = min(costs, key=lambda order: costs[order])
        chosen = sorted(range(size), key=lambda group: -closeness[group].item())[: int(size * ratio)]
        terms.append(sum(dice(group, best[group]) for group in chosen) / len(chosen))
    return sum(terms) / len(terms)


def assert_same_with_gradients(fast: Tensor, plain: Tensor, inputs: list[Tensor]) -> None:
    torch.testing.assert_close(fast, plain)
    for a, b in zip(torch.autograd.grad(fast, inputs), torch.autograd.grad(plain, inputs), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_contrastive_of_two_orthogonal_pairs_by_hand() -> None:
    # Own cosine 1, other 0: each direction costs log(1 + exp(-5)).
    image = torch.tensor([[2.0, 0.0], [0.0, 3.0]])
    assert math.isclose(contrastive(image, image, SCALE).item(), math.log(1 + math.exp(-5)), rel_tol=1e-5)


def test_contrastive_equals_its_plain_version() -> None:
    image, text = features(0, 5, 7), features(1, 5, 7)
    fast, plain = contrastive(image, text, SCALE), plain_both_ways(image, text, torch.eye(5))
    assert_same_with_gradients(fast, plain, [image, text])


def test_contrastive_with_positives_equals_its_plain_version() -> None:
    image, text = features(0, 5, 7), features(1, 5, 7)
    positives = same_set_positives(torch.tensor([3, 8, 3, -1, -1]))
    fast, plain = contrastive(image, text, SCALE, positives), plain_both_ways(image, text, positives)
    assert_same_with_gradients(fast, plain, [image, text])


def test_only_equal_entity_sets_share_and_none_shares_with_nobody() -> None:
    found = same_set_positives(torch.tensor([3, 8, 3, -1, -1]))
    expected = torch.eye(5, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = True
    assert torch.equal(found, expected)


def test_contrastive_refuses_positives_of_another_batch() -> None:
    with pytest.raises(ValueError, match=r"positives_BB: expected shape \(5, 5\).*found \(4, 4\)"):
        contrastive(features(0, 5, 7), features(1, 5, 7), SCALE, torch.eye(4))


def test_multi_label_contrastive_equals_its_plain_version() -> None:
    image, prompt = features(0, 4, 6), features(1, 3, 6)
    # The third image names nothing, the second prompt is named by nobody.
    labels = torch.tensor([[1, 0, 1], [1, 0, 0], [0, 0, 0], [0, 0, 1]]).bool()
    fast, plain = multi_label_contrastive(image, prompt, labels, SCALE), plain_both_ways(image, prompt, labels)
    assert_same_with_gradients(fast, plain, [image, prompt])


def test_a_prompt_that_fits_one_group_needs_no_other() -> None:
    group, prompt = features(0, 2, 3, 6), features(1, 4, 6)
    labels = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 0]]).bool()
    logits = torch.stack(
        [
            torch.stack(
                [
                    torch.stack([(SCALE * plain_cosine(one, word)).exp() for one in groups]).mean().log()
                    for word in prompt
                ]
            )
            for groups in group
        ]
    )
    rows = -(logits.log_softmax(1) * labels).sum(1) / labels.sum(1)
    columns = -(logits.log_softmax(0) * labels).sum(0)[:3] / labels.sum(0)[:3]
    fast = multi_label_contrastive(group, prompt, labels, SCALE)
    assert_same_with_gradients(fast, (rows.mean() + columns.mean()) / 2, [group, prompt])


def test_multi_label_contrastive_without_any_label_is_zero() -> None:
    loss = multi_label_contrastive(features(0, 4, 6), features(1, 3, 6), torch.zeros(4, 3), SCALE)
    assert loss.item() == 0


def test_multi_label_contrastive_refuses_labels_of_another_batch() -> None:
    with pytest.raises(ValueError, match=r"expected shape \[4 images, 3 prompts\], found \(3, 4\)"):
        multi_label_contrastive(features(0, 4, 6), features(1, 3, 6), torch.ones(3, 4), SCALE)


def test_pairwise_dice_by_hand() -> None:
    prediction = torch.tensor([[[1.0, 1.0, 0.0], [0.0, 0.0, 0.0]]])
    target = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]])
    # 1 - (2 overlap + 1) / (areas + 1)
    expected = torch.tensor([[[1 - 3 / 4, 1 - 1 / 3], [1 - 1 / 2, 1 - 1 / 1]]])
    torch.testing.assert_close(pairwise_dice(prediction, target), expected)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(2, 9))
def test_pairwise_dice_lies_between_zero_and_one(seed: int, groups: int, patches: int) -> None:
    masks = torch.rand(2, 3, groups, patches, generator=torch.Generator().manual_seed(seed))
    dice = pairwise_dice(masks[0], masks[1].round())
    assert dice.min() >= -1e-6
    assert dice.max() <= 1


@pytest.mark.parametrize("ratio", [0.5, 1.0])
def test_mask_consistency_equals_its_plain_version(ratio: float) -> None:
    prediction, target, affinity = features(0, 3, 4, 10), features(1, 3, 4, 10).detach(), features(2, 3, 4).detach()
    fast = mask_consistency(prediction, target, affinity, ratio, 0.6)
    plain = plain_mask_consistency(prediction, target, affinity, ratio)
    assert_same_with_gradients(fast, plain, [prediction])


def test_masks_that_agree_up_to_the_order_of_groups_cost_nothing() -> None:
    masks = torch.tensor([[[5.0, 5.0, -1.0, -1.0], [-2.0, -2.0, 3.0, 3.0]]])
    assert mask_consistency(masks, masks.flip(1), torch.zeros(1, 2), 1.0, 0.6).item() == pytest.approx(0.0, abs=1e-6)


def test_constant_masks_have_a_finite_loss_and_gradient() -> None:
    prediction = torch.full((2, 3, 4), 0.7, requires_grad=True)
    loss = mask_consistency(prediction, torch.full((2, 3, 4), -0.1), torch.zeros(2, 3), 0.5, 0.6)
    assert loss.isfinite()
    assert torch.autograd.grad(loss, prediction)[0].isfinite().all()


def test_images_without_a_cross_image_are_left_out_of_mask_consistency() -> None:
    prediction, target, affinity = features(0, 3, 4, 10), features(1, 3, 4, 10).detach(), features(2, 3, 4).detach()
    has_cross = torch.tensor([True, False, True])
    some = mask_consistency(prediction, target, affinity, 0.5, 0.6, has_cross)
    only = mask_consistency(prediction[has_cross], target[has_cross], affinity[has_cross], 0.5, 0.6)
    assert_same_with_gradients(some, only, [prediction])
    assert mask_consistency(prediction, target, affinity, 0.5, 0.6, torch.zeros(3, dtype=torch.bool)).item() == 0


def test_groups_far_from_the_entity_get_no_gradient() -> None:
    prediction = features(0, 1, 4, 10)
    mask_consistency(prediction, features(1, 1, 4, 10), torch.tensor([[0.0, 3.0, 1.0, 2.0]]), 0.5, 0.6).backward()
    assert prediction.grad is not None
    moved = prediction.grad.abs().sum(dim=2)[0] > 0
    assert moved.tolist() == [False, True, False, True]
