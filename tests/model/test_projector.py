from __future__ import annotations

import torch
from torch import nn

from model.config import ModelConfig
from model.projector import SharedBatchNorm, build_projector


def test_alone_it_is_plain_batch_normalisation() -> None:
    torch.manual_seed(0)
    shared, plain, x = SharedBatchNorm(5), nn.BatchNorm1d(5), torch.randn(7, 5)
    torch.testing.assert_close(shared(x), plain(x))
    torch.testing.assert_close(shared.state_dict(), plain.state_dict())
    torch.testing.assert_close(shared.eval()(x), plain.eval()(x))


def test_feature_maps_are_normalised_per_channel() -> None:
    torch.manual_seed(0)
    shared, plain, x = SharedBatchNorm(5), nn.BatchNorm2d(5), torch.randn(3, 5, 4, 2)
    torch.testing.assert_close(shared(x), plain(x))
    torch.testing.assert_close(shared.eval()(x), plain.eval()(x))


def test_the_config_chooses_the_projector() -> None:
    assert isinstance(build_projector(6, ModelConfig(projector="linear", embedding_width=4)), nn.Linear)
    projector = build_projector(6, ModelConfig(embedding_width=4, projector_width=10))
    assert projector(torch.randn(3, 6)).shape == (3, 4)
    assert [type(layer) for layer in projector.children()] == [nn.Linear, SharedBatchNorm, nn.ReLU, nn.Linear]
