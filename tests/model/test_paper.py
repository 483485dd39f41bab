"""The release's numbers on random weights (parity/, made by running the release) against the published behaviour."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import BertConfig

from model import Batch, Losses, OVSegmentor, PaperSegmentor, Tokens, load_official
from model.official import UNUSED, translate

FIXTURE = Path(__file__).parent / "parity"
TAGS = ("evalmode", "train", "train_noise")
# The reference itself is off by this much against its own run in double precision: in training the batch
# normalisation of four captions amplifies rounding.
LOSS_ERROR = {"evalmode": 5e-7, "train": 1.5e-5, "train_noise": 1.5e-5, "train_stage1": 1.5e-5}
GRAD_ERROR = {"evalmode": 2e-5, "train": 1e-4, "train_noise": 1e-4, "train_stage1": 1e-4}
OURS = {"matching": "contrastive", "entity": "entity", "mask": "mask", "loss": "total"}


@cache
def fixture() -> tuple[dict[str, Any], dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """Return config, weights, inputs and outputs."""
    arrays = [dict(np.load(FIXTURE / f"{name}.npz")) for name in ("inputs", "outputs")]
    inputs, outputs = ({key: torch.from_numpy(value) for key, value in part.items()} for part in arrays)
    state = torch.load(FIXTURE / "state_dict.pt")
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    return json.loads((FIXTURE / "config.json").read_text()), state, inputs, outputs


def load(stage1: bool = False) -> PaperSegmentor:
    config, state, _, _ = fixture()
    model = deepcopy(config["what"]["model"])
    text = BertConfig(**config["what"]["bert_config"], hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    if stage1:
        model["use_maskloss"] = model["text_encoder"]["fixed"] = False
        state = {key: value for key, value in state.items() if "momentum" not in key}
    return load_official(state, model, text)


def batch() -> Batch:
    inputs = fixture()[2]

    def tokens(name: str) -> Tokens:
        return Tokens(inputs[f"{name}/input_ids"], inputs[f"{name}/attention_mask"])

    return Batch(
        image=inputs["image"],
        caption=tokens("text"),
        question=tokens("question"),
        answer=tokens("answer"),
        cross_image=inputs["cross_image"],
        cross_entity=tokens("cross_entity"),
    )


def run(tag: str, monkeypatch: pytest.MonkeyPatch) -> tuple[PaperSegmentor, Losses]:
    """Return the model after one forward pass, with the noise of the reference run."""
    inputs = fixture()[2]
    drawn = [inputs["gumbel/online"], inputs["gumbel/momentum"]] if tag == "train_noise" else []

    def sample(_: Any, shape: torch.Size) -> Tensor:
        return drawn.pop(0) if drawn else torch.zeros(shape)

    monkeypatch.setattr(torch.distributions.Gumbel, "sample", sample)
    model = load(stage1=tag == "train_stage1").train(tag != "evalmode")
    return model, model.losses(batch())


def official_parameters(model: OVSegmentor) -> dict[str, Tensor]:
    """Return the parameters by the names of the release."""
    own = dict(model.named_parameters())
    found = {}
    for key, value in fixture()[1].items():
        for name in translate({key: value})[0]:
            if name in own:
                found[key] = own[name]
    return found


@pytest.mark.parametrize("tag", [*TAGS, "train_stage1"])
def test_losses_equal_the_release(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, losses = run(tag, monkeypatch)
    for name, expected in fixture()[0]["losses"][tag].items():
        assert getattr(losses, OURS[name]).item() == pytest.approx(expected, abs=LOSS_ERROR[tag]), name
    assert (losses.mask is None) == (tag == "train_stage1")


@pytest.mark.parametrize("tag", [*TAGS, "train_stage1"])
def test_gradient_norms_equal_the_release(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    config = fixture()[0]
    model, losses = run(tag, monkeypatch)
    zero = config["analytically_zero_grads"].get(tag, config["analytically_zero_grads"]["train"])
    for name, norms in config["grad_norms"][tag].items():
        model.zero_grad()
        getattr(losses, OURS[name]).backward(retain_graph=True)
        parameters = official_parameters(model)
        for key, norm in norms.items():
            if key in zero or norm is None:
                continue
            grad = parameters[key].grad
            found = 0.0 if grad is None else grad.norm().item()
            assert found == pytest.approx(norm, rel=GRAD_ERROR[tag], abs=1e-5), f"{name}: {key}"


@pytest.mark.parametrize("tag", ["train", "train_noise"])
def test_batch_statistics_are_fed_as_often_as_in_the_release(tag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = run(tag, monkeypatch)
    outputs = fixture()[3]
    for ours, theirs in (("image", "img"), ("text", "text"), ("completion", "bridge")):
        norm = getattr(model, f"{ours}_projector")[1]
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            expected = outputs[f"{tag}/bn_after/{theirs}_projector.{name}"]
            torch.testing.assert_close(getattr(norm, name), expected, atol=1e-6, rtol=1e-5)


def test_features_on_the_way_equal_the_release() -> None:
    model, outputs = load(), fixture()[3]
    assert model.momentum_encoder is not None
    given = batch()
    assert given.cross_image is not None

    def compare(name: str, found: Tensor, atol: float = 2e-5) -> None:
        expected = outputs[f"evalmode/{name}"]
        torch.testing.assert_close(found[: len(expected)].reshape(expected.shape), expected, atol=atol, rtol=1e-5,
                                   msg=lambda text: f"{name}: {text}")  # fmt: skip

    with torch.no_grad():
        for branch, encoder, image in (
            ("online", model.image_encoder, given.image),
            ("momentum", model.momentum_encoder, given.cross_image),
        ):
            stage: Any = encoder.stages[0]
            patch, token = stage.tokens(encoder.embed(image)[0], None)
            compare(f"{branch}/patch_tokens_stage1", patch)
            compare(f"{branch}/group_tokens_stage1", token)
            compare(f"{branch}/projected_group_tokens", stage.grouping.assign(patch, token)[1])
            groups, assignment = stage.grouping(patch, token)
            compare(f"{branch}/grouping_out", groups)
            compare(f"{branch}/soft", assignment.soft_BGN)
            compare(f"{branch}/q", assignment.query_BGD)
            compare(f"{branch}/k", assignment.key_BND)
            hard = assignment.logits_BGN.argmax(dim=1)
            assert torch.equal(hard, outputs[f"evalmode/{branch}/hard_argmax"][:, 0])
            whole = encoder(image)[0]
            compare(f"{branch}/feat", whole)
            compare(f"{branch}/x", whole.mean(dim=1))
        features = model.encode_image(given.image)
        compare("online/image_x", features.embedding_BE, 5e-5)
        compare("online/image_feat", features.group_embedding_BGE, 5e-5)
        for name, tokens in (("text", given.caption), ("question", given.question), ("answer", given.answer)):
            assert tokens is not None
            text = model.encode_text(tokens)
            compare(f"{name}/x", text.token_BLD[:, 0])
            compare(f"{name}/text_x", text.embedding_BE, 5e-5)
            if name == "question":
                compare("question/feat", text.token_BLD)
                assert model.completion is not None
                answer = model.completion(text.token_BLD, torch.zeros(4, dtype=torch.int64), None, features.group_BGD)
                compare("entity/question_out", answer)
                compare("entity/question_bridge", model.completion_projector(answer), 5e-5)


def test_the_mask_loss_goes_the_way_of_the_release() -> None:
    model, outputs, given = load(), fixture()[3], batch()
    assert model.momentum_encoder is not None
    assert given.cross_entity is not None
    assert given.cross_image is not None
    with torch.no_grad():
        image, cross = model.encode_image(given.image), model.momentum_encoder.assign(given.cross_image)
        entity = model.encode_text(given.cross_entity).embedding_BE
        terms = model.mask_terms(image.assignment, cross, image.grid, image.group_embedding_BGE, entity)
    torch.testing.assert_close(cross.logits_BGN, outputs["evalmode/mask/attn_target"], atol=2e-5, rtol=1e-5)
    prediction = model.image_encoder.similarity(image.assignment.query_BGD, cross.key_BND)
    torch.testing.assert_close(prediction, outputs["evalmode/mask/attn_pred"], atol=2e-5, rtol=1e-5)
    torch.testing.assert_close(terms.affinity_BG, outputs["evalmode/mask/group_logits"], atol=5e-4, rtol=1e-5)
    assert torch.equal(terms.detached_BG.sort(dim=1).values, outputs["evalmode/mask/detached_groups"])
    assert torch.equal(outputs["evalmode/mask/match_pred"], torch.arange(8).expand(4, 8))
    assert torch.equal(terms.matched_BG, outputs["evalmode/mask/match_target"])


@pytest.mark.parametrize("size", ["seg448", "seg592"])
def test_other_sizes_give_the_features_of_the_release(size: str) -> None:
    model, (_, _, inputs, outputs) = load(), fixture()
    with torch.no_grad():
        features = model.encode_image(inputs[f"{size}/image"])
        affinity = model.scale() * F.normalize(features.embedding_BE, dim=-1) @ inputs["seg/text_embedding"].T
    torch.testing.assert_close(features.assignment.soft_BGN, outputs[f"{size}/soft"][:, 0], atol=5e-6, rtol=1e-4)
    groups = F.normalize(features.group_embedding_BGE[0], dim=-1)
    torch.testing.assert_close(groups, outputs[f"{size}/grouped_img_tokens"], atol=2e-6, rtol=1e-4)
    torch.testing.assert_close(affinity.softmax(dim=-1), outputs[f"{size}/avg_affinity_mat"], atol=2e-6, rtol=1e-4)


def test_a_step_of_training_equals_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    config, _, _, outputs = fixture()
    model, losses = run("train", monkeypatch)
    parameters, settings = official_parameters(model), config["optimizer"]
    trained = {key: p for key, p in parameters.items() if p.requires_grad}
    groups = [
        {"params": [p for key, p in trained.items() if key in settings[name]], "weight_decay": decay}
        for name, decay in (("decay", settings["weight_decay"]), ("no_decay", 0.0))
    ]
    assert sum(len(group["params"]) for group in groups) == len(trained)
    optimizer = torch.optim.AdamW(groups, lr=settings["lr"], betas=settings["betas"], eps=settings["eps"])
    losses.total.backward()
    total = torch.nn.utils.clip_grad_norm_(list(trained.values()), settings["clip_grad"])
    assert total.item() == pytest.approx(settings["total_grad_norm_before_clip"], rel=1e-4)
    optimizer.step()
    model.update_momentum(0.99)
    for key, norm in config["after_step_norms"].items():
        if key in parameters and key not in config["analytically_zero_grads"]["train"]:
            assert parameters[key].norm().item() == pytest.approx(norm, rel=2e-4), key
    for key, expected in outputs.items():
        name = key.removeprefix("after_step/")
        if name != key and name in parameters:
            # The first step of Adam moves by the sign of a gradient: near zero, rounding decides.
            grad = parameters[name].grad
            sure = torch.ones_like(expected, dtype=torch.bool) if grad is None else grad.abs() > 1e-6
            assert sure.float().mean() > 0.6, name
            torch.testing.assert_close(parameters[name][sure], expected[sure], atol=5e-6, rtol=1e-4)


def test_the_published_behaviour_survives_saving(tmp_path: Path) -> None:
    model = load()
    model.save_pretrained(tmp_path)
    back = OVSegmentor.from_pretrained(tmp_path)
    assert isinstance(back, PaperSegmentor)
    image = batch().image[:1]
    assert torch.equal(back.encode_image(image).embedding_BE, model.encode_image(image).embedding_BE)
    with pytest.raises(ValueError, match="loaded without a tokenizer; set model"):
        back.tokenize(["a cat"])


def test_every_weight_is_used_or_known_as_unused() -> None:
    """What the release never uses gets no gradient there, or one that is zero for reasons of algebra."""
    import re

    config, state, _, _ = fixture()
    left_out = [key for key in state if any(re.search(pattern, key) for pattern in UNUSED)]
    for key in left_out:
        norm = config["grad_norms"]["train"]["loss"].get(key)
        assert norm in (None, 0.0) or key in config["analytically_zero_grads"]["train"], key


Change = Callable[[dict[str, Tensor]], Any]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.pop("img_encoder.norm.bias"), r"1 missing \['image_encoder.norm.bias'\]"),
        (
            lambda state: state.update({"img_encoder.norm.bias": torch.zeros(3)}),
            r"1 of other shapes \['image_encoder.n",
        ),
        (lambda state: state.pop("img_encoder.patch_embed.proj.weight"), "expected img_encoder"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(change: Change, message: str) -> None:
    config, state, _, _ = fixture()
    state = dict(state)
    change(state)
    with pytest.raises(ValueError, match=message):
        load_official(state, config["what"]["model"], BertConfig(**config["what"]["bert_config"]))


def test_every_key_is_accounted_for(caplog: pytest.LogCaptureFixture) -> None:
    config, state, _, _ = fixture()
    model = load_official(
        {**state, "extra": torch.zeros(1)}, config["what"]["model"], BertConfig(**config["what"]["bert_config"])
    )
    report = model.load_report
    assert report is not None
    assert set(report.loaded) == set(model.state_dict())
    assert report.new == ()
    assert len(report.loaded) + len(report.unused) == len(state) + 1
    assert {"extra", "logit_scale_mask"} < set(report.unused)
    assert "extra" in caplog.text  # a weight nobody knows is worth a warning


def test_the_forms_of_released_checkpoints_are_the_same_model(tmp_path: Path) -> None:
    config, state, _, _ = fixture()
    text = BertConfig(**config["what"]["bert_config"])
    other = dict(state)
    other["img_encoder.pos_embed"] = other["img_encoder.pos_embed"][None]
    other["text_encoder.transformer.embeddings.position_ids"] = torch.arange(128)[None]
    torch.save({"model": other, "epoch": 3, "max_accuracy": np.float64(52.1)}, tmp_path / "checkpoint.pth")
    one = load_official(state, config["what"]["model"], text).state_dict()
    two = load_official(tmp_path / "checkpoint.pth", config["what"]["model"], text).state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(value, two[key]) for key, value in one.items())
