"""Label maps of the release on random weights against the published protocol."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn.functional import interpolate

from evaluation import Protocol, Segmenter
from tests.model.test_paper import fixture, load

WHOLE = replace(Protocol.paper(), window=None, stride=None)


def agreement(name: str, segmenter: Segmenter) -> float:
    _, _, inputs, outputs = fixture()
    found = segmenter.segment(inputs[f"{name.split('/')[0]}/image"])[0]
    return (found == outputs[f"{name}/pred"].long()).double().mean().item()


@pytest.mark.parametrize("size", ["seg448", "seg592"])
@pytest.mark.parametrize("threshold", [None, 0.95, 0.35, 0.15])
def test_one_window_is_labelled_as_by_the_release(size: str, threshold: float | None) -> None:
    name = f"{size}/nobg" if threshold is None else f"{size}/bg{threshold}"
    protocol = replace(WHOLE, threshold=threshold or WHOLE.threshold)
    segmenter = Segmenter(load(), fixture()[2]["seg/text_embedding"], protocol, has_background=threshold is not None)
    assert agreement(name, segmenter) >= 0.999


@pytest.mark.parametrize("threshold", [None, 0.95, 0.15])
def test_sliding_windows_are_labelled_as_by_the_release(threshold: float | None) -> None:
    name = "seg592/slide_nobg" if threshold is None else f"seg592/slide_bg{threshold}"
    protocol = Protocol.paper(threshold or 0.95)
    segmenter = Segmenter(load(), fixture()[2]["seg/text_embedding"], protocol, has_background=threshold is not None)
    assert agreement(name, segmenter) >= 0.999


def test_sliding_windows_are_averaged_as_by_the_release() -> None:
    _, _, inputs, outputs = fixture()
    segmenter = Segmenter(load(), inputs["seg/text_embedding"], Protocol.paper(0.15), has_background=True)
    logits = segmenter.logits(inputs["seg592/image"])[0]
    expected = outputs["seg592/slide_bg0.15/logits_every16"]
    close = (logits[:, ::16, ::16] - expected).abs() < 1e-4
    assert close.double().mean() >= 0.999  # a pixel on the border of two groups may fall to either


def test_a_model_of_published_behaviour_follows_the_published_protocol() -> None:
    vectors = fixture()[2]["seg/text_embedding"]
    assert Segmenter(load(), vectors).protocol == Protocol.paper()


def test_the_remainder_behind_the_last_whole_patch_is_lost_as_in_the_release() -> None:
    _, _, inputs, _ = fixture()
    model, image = load(), inputs["seg448/image"]
    features = model.encode_image(image[..., :440, :441])
    assert features.grid == (27, 27)
    other = image[..., :440, :441].clone()
    other[..., 432:, :] = 9.0
    assert torch.equal(model.encode_image(other).embedding_BE, features.embedding_BE)
    stretched = interpolate(features.assignment.soft_BGN.reshape(1, 8, 27, 27), (440, 441), mode="bilinear")
    own_size = Segmenter(model, inputs["seg/text_embedding"], Protocol())
    assert torch.equal(own_size.groups(image[..., :440, :441]), stretched.argmax(1))
