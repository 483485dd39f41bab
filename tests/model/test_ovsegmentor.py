from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import pytest
import torch
import torch.nn.functional as F

from model import Batch, LossConfig, ModelConfig, OVSegmentor, Tokens, initial, losses

Make = Callable[..., OVSegmentor]
MakeBatch = Callable[..., Batch]


@pytest.fixture(params=["paper_config", "small_config"])
def config(request: pytest.FixtureRequest) -> ModelConfig:
    found: ModelConfig = request.getfixturevalue(request.param)
    return replace(found, loss=LossConfig(nouns=1.0))


def test_image_features_have_the_shapes_they_promise(config: ModelConfig, make_model: Make) -> None:
    model = make_model(config).eval()
    features = model.encode_image(torch.randn(2, 3, 40, 64))
    rows, columns = features.grid
    size = config.image.patch_size
    assert (rows, columns) == (40 // size, 64 // size)
    assert features.embedding_BE.shape == (2, 12)
    assert features.group_embedding_BGE.shape == (2, 4, 12)
    assert features.group_BGD.shape == (2, 4, 24)
    assert features.assignment.soft_BGN.shape == (2, 4, rows * columns)
    assert features.assignment.query_BGD.shape == (2, 4, 24)
    assert features.assignment.key_BND.shape == (2, rows * columns, 24)
    assert model.patch_embedding(torch.randn(2, 3, 40, 64)).shape == (2, rows * columns, 12)


def test_an_image_is_encoded_alike_alone_and_in_a_batch(config: ModelConfig, make_model: Make) -> None:
    model = make_model(config).eval()
    image = torch.randn(3, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(
            model.encode_image(image[:1]).embedding_BE, model.encode_image(image).embedding_BE[:1]
        )


def test_losses_are_those_of_the_parts(config: ModelConfig, make_model: Make, make_batch: MakeBatch) -> None:
    """Every loss from the public encoders alone, in eval mode."""
    model = make_model(config).eval()
    model.start_momentum()
    assert model.completion is not None
    assert model.momentum_encoder is not None
    with torch.no_grad():
        for parameter in model.momentum_encoder.parameters():
            parameter.add_(0.02)
    batch = make_batch(model)
    found = model.losses(batch)
    image, cross = model.encode_image(batch.image), model.momentum_encoder.assign(batch.cross_image)
    assert batch.question is not None
    assert batch.answer is not None
    assert batch.cross_entity is not None
    assert batch.nouns is not None
    assert batch.noun_labels_BN is not None
    question = model.encode_text(batch.question)
    caption, answer, entity, nouns = (
        model.encode_text(tokens).embedding_BE
        for tokens in (batch.caption, batch.answer, batch.cross_entity, batch.nouns)
    )
    scale = model.logit_scale.exp()
    first_B = torch.zeros(4, dtype=torch.int64)
    completed = model.completion(question.token_BLD, first_B, batch.question.attention_mask_BL, image.group_BGD)
    same = torch.eye(4, dtype=torch.bool)
    same[0, 3] = same[3, 0] = True  # both ask for "a photo of a cat"
    expected = {
        "contrastive": losses.contrastive(image.embedding_BE, caption, scale),
        "entity": losses.contrastive(model.completion_projector(completed), answer, scale, same),
        "nouns": losses.multi_label_contrastive(image.embedding_BE, nouns, batch.noun_labels_BN, scale),
        "mask": losses.mask_consistency(
            model.image_encoder.similarity(image.assignment.query_BGD, cross.key_BND),
            model.momentum_encoder.similarity(cross.query_BGD, cross.key_BND),
            torch.einsum("bge,be->bg", image.group_embedding_BGE, entity),
            0.5,
            0.6,
        ),
    }
    for name, value in expected.items():
        torch.testing.assert_close(getattr(found, name), value, msg=lambda text, name=name: f"{name}: {text}")
    total = expected["contrastive"] + expected["entity"] + 1.6 * expected["mask"] + expected["nouns"]
    torch.testing.assert_close(found.total, total)


def test_a_loss_without_weight_or_inputs_is_left_out(
    paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch
) -> None:
    model = make_model(replace(paper_config, loss=LossConfig(entity=0.0)))
    batch = make_batch(model, cross=False)
    found = model.losses(batch)
    assert (found.entity, found.mask, found.nouns) == (None, None, None)
    assert torch.equal(found.total, found.contrastive)
    assert model.completion is None


@pytest.mark.parametrize("words_see", ["groups", "text"])
def test_masked_words_are_told_from_groups_or_from_the_text_alone(
    words_see: Literal["groups", "text"], paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch
) -> None:
    loss = LossConfig(entity=0.0, mask=0.0, words=2.0, words_see=words_see)
    model = make_model(replace(paper_config, loss=loss)).eval()
    batch = make_batch(model, cross=False)
    target_BL = torch.full_like(batch.caption.input_ids_BL, -100)
    target_BL[0, 2] = target_BL[3, 1] = 7
    batch = replace(batch, masked=batch.caption, masked_target_BL=target_BL)
    found = model.losses(batch)
    token_BLD = model.encode_text(batch.caption).token_BLD
    head = model.word_prediction
    assert head is not None
    if model.completion is not None:
        group_BGD = model.encode_image(batch.image).group_BGD
        token_BLD = model.completion.tokens(token_BLD, batch.caption.attention_mask_BL, group_BGD)
    table = model.text_encoder.transformer.embeddings.word_embeddings.weight
    expected = []
    for row, place in ((0, 2), (3, 1)):
        token = head.norm(F.gelu(head.dense(token_BLD[row, place])))
        expected.append(-(table @ token + head.bias).log_softmax(dim=0)[7])
    assert found.words is not None
    torch.testing.assert_close(found.words, sum(expected) / 2)
    torch.testing.assert_close(found.total, found.contrastive + 2 * found.words)
    assert (model.completion is None) == (words_see == "text")
    model.train().losses(batch).total.backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []


def test_every_weight_is_trained(config: ModelConfig, make_model: Make, make_batch: MakeBatch) -> None:
    """A weight without a gradient would be dead, and would stall distributed training."""
    model = make_model(config).train()
    model.losses(make_batch(model, cross=False)).total.backward()
    untouched = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert untouched == []
    # Last LayerNorm's width: the word table has rows for words that the batch does not use, all else moves.
    still = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and not parameter.grad.abs().sum() > 0
    ]
    assert still == []


def test_mask_consistency_trains_the_queries_only(config: ModelConfig, make_model: Make, make_batch: MakeBatch) -> None:
    model = make_model(config).eval()
    model.start_momentum()
    mask = model.losses(make_batch(model)).mask
    assert mask is not None
    mask.backward()
    moved = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
    grouping = "image_encoder.stages.0.grouping."
    assert f"{grouping}q_proj.weight" in moved
    assert f"{grouping}k_proj.weight" not in moved
    assert not [
        name for name in moved if name.startswith(("momentum", "text", "image_projector", "image_encoder.norm"))
    ]


def test_training_steps_lower_the_loss(config: ModelConfig, tokenizer: Any, make_batch: MakeBatch) -> None:
    torch.manual_seed(0)
    model = initial(config, tokenizer, seed=0).train()
    model.start_momentum()
    batch = make_batch(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=3e-3)
    totals = []
    for _ in range(60):
        optimizer.zero_grad()
        total = model.losses(batch).total
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert sum(totals[-5:]) < 0.7 * sum(totals[:5])


def test_the_same_seed_gives_the_same_weights_and_losses(
    config: ModelConfig, tokenizer: Any, make_batch: MakeBatch
) -> None:
    outcomes = []
    for noise in (1, 2):
        torch.manual_seed(noise)  # what was drawn before must not matter
        before = torch.get_rng_state()
        model = initial(config, tokenizer, seed=3).train()
        assert torch.equal(torch.get_rng_state(), before)
        torch.manual_seed(7)
        outcomes.append((model.state_dict(), model.losses(make_batch(model, cross=False)).total.item()))
    assert outcomes[0][1] == outcomes[1][1]
    assert all(torch.equal(value, outcomes[1][0][name]) for name, value in outcomes[0][0].items())
    other = initial(config, tokenizer, seed=4).state_dict()
    assert not torch.equal(other["image_encoder.stages.0.token"], outcomes[0][0]["image_encoder.stages.0.token"])


def test_padding_of_any_text_changes_no_loss(config: ModelConfig, make_model: Make, make_batch: MakeBatch) -> None:
    model = make_model(config).eval()
    model.start_momentum()
    batch = make_batch(model)

    def longer(tokens: Tokens | None) -> Tokens:
        assert tokens is not None
        return Tokens(F.pad(tokens.input_ids_BL, (0, 9)), F.pad(tokens.attention_mask_BL, (0, 9)))

    names = ("caption", "question", "answer", "cross_entity", "nouns")
    padded = replace(batch, **{name: longer(getattr(batch, name)) for name in names})
    torch.testing.assert_close(vars(model.losses(padded)), vars(model.losses(batch)))


def test_only_whole_images_and_captions_move_the_running_statistics(
    paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch
) -> None:
    model = make_model(paper_config).train()
    model.start_momentum()
    model.losses(make_batch(model))
    image_norm, text_norm = model.image_projector[1], model.text_projector[1]  # type: ignore[index]
    assert int(image_norm.num_batches_tracked) == 1
    assert int(text_norm.num_batches_tracked) == 2  # captions and answers
    assert model.image_projector.training


def test_the_momentum_encoder_starts_as_a_copy_and_follows_slowly(config: ModelConfig, make_model: Make) -> None:
    model = make_model(config)
    with pytest.raises(ValueError, match="there is no momentum encoder; call start_momentum first"):
        model.update_momentum(0.9)
    model.start_momentum()
    assert model.momentum_encoder is not None
    model.train()
    assert not model.momentum_encoder.training
    assert not any(parameter.requires_grad for parameter in model.momentum_encoder.parameters())
    slow, fast = model.momentum_encoder.norm.weight, model.image_encoder.norm.weight
    assert torch.equal(slow, fast)
    old = slow.clone()
    with torch.no_grad():
        fast.add_(1.0)
    model.update_momentum(0.9)
    torch.testing.assert_close(slow.data, old + 0.1)


def test_a_frozen_text_encoder_keeps_still(paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch) -> None:
    config = replace(paper_config, text=replace(paper_config.text, dropout=0.5))
    model = make_model(config).train()
    assert model.text_encoder.training
    model.freeze_text()
    assert model.train().training
    assert not model.text_encoder.training
    model.losses(make_batch(model, cross=False)).total.backward()
    assert all(parameter.grad is None for parameter in model.text_encoder.parameters())
    assert all(parameter.grad is not None for parameter in model.text_projector.parameters())


def test_the_scale_is_bounded(config: ModelConfig, make_model: Make) -> None:
    model = make_model(config)
    with torch.no_grad():
        model.logit_scale.fill_(10.0)
    assert model.scale().item() == 100.0


@pytest.mark.parametrize(
    "image",
    [
        torch.zeros(3, 32, 32),
        torch.zeros(1, 1, 32, 32),
        torch.zeros(1, 3, 0, 32),
        torch.zeros(0, 3, 32, 32),
        torch.zeros(1, 3, 32, 32, dtype=torch.uint8),
    ],
)
def test_what_is_no_image_is_refused(image: torch.Tensor, paper_config: ModelConfig, make_model: Make) -> None:
    with pytest.raises(ValueError, match=r"image: expected normalised float images \[batch, 3, height, width\]"):
        make_model(paper_config).encode_image(image)


def test_images_that_are_not_finite_are_named(paper_config: ModelConfig, make_model: Make) -> None:
    image = torch.zeros(3, 3, 32, 32)
    image[1, 0, 5, 5] = float("nan")
    model = make_model(paper_config)
    for encode in (model.encode_image, model.patch_embedding):
        with pytest.raises(ValueError, match="found NaN or infinite values in image 1 of the batch"):
            encode(image)


def test_a_batch_of_one_is_scored_but_not_trained_on(
    config: ModelConfig, make_model: Make, make_batch: MakeBatch
) -> None:
    model = make_model(config)
    batch = make_batch(model, size=1, cross=False)
    losses = model.eval().losses(batch)
    assert losses.contrastive.item() == 0.0  # nothing to be told apart from
    assert losses.total.isfinite()
    if config.projector == "mlp":
        with pytest.raises(ValueError, match=r"found a single pair; .* use at least 2 pairs, or projector = 'linear'"):
            model.train().losses(batch)


def test_training_images_that_are_not_finite_are_named(
    paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch
) -> None:
    model = make_model(paper_config)
    batch = make_batch(model, cross=False)
    batch.image[2, 0, 0, 0] = float("inf")
    with pytest.raises(ValueError, match="image: found NaN or infinite values in image 2 of the batch"):
        model.losses(batch)


def test_empty_captions_have_a_defined_loss(config: ModelConfig, make_model: Make, make_batch: MakeBatch) -> None:
    model = make_model(config).train()
    batch = replace(make_batch(model, cross=False), caption=model.tokenize(["", "a cat", "", "a dog"]))
    losses = model.losses(batch)
    assert losses.total.isfinite()


def test_a_batch_whose_parts_do_not_fit_is_refused(
    paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch
) -> None:
    model = make_model(replace(paper_config, loss=LossConfig(share_positives=True)))
    batch = make_batch(model)
    with pytest.raises(ValueError, match="caption: expected one per image, 4, found 2"):
        model.losses(replace(batch, caption=model.tokenize(["a", "b"])))
    with pytest.raises(ValueError, match="question is given without its partner; give both of question and answer"):
        model.losses(replace(batch, answer=None))
    with pytest.raises(ValueError, match="cross_image: expected one per image, 4, found 3"):
        model.losses(replace(batch, cross_image=torch.zeros(3, 3, 32, 32)))
    with pytest.raises(ValueError, match="share_positives asks for positives_BB"):
        model.losses(batch)
    with pytest.raises(ValueError, match="there is no momentum encoder; call start_momentum"):
        model.losses(replace(batch, positives_BB=torch.eye(4, dtype=torch.bool)))


def test_a_batch_moves_as_a_whole(paper_config: ModelConfig, make_model: Make, make_batch: MakeBatch) -> None:
    batch = make_batch(make_model(paper_config), cross=False)
    moved = batch.to("meta")
    assert moved.image.is_meta
    assert moved.caption.input_ids_BL.is_meta
    assert moved.cross_image is None
