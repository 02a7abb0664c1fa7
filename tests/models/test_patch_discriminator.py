"""The conditional PatchGAN: the published count and patches, and that a score sees its patch alone."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from xr2ct.models.patch_discriminator import Config, PatchDiscriminator


def test_parameters_and_patches_are_the_published_ones() -> None:
    with torch.device("meta"):
        d = PatchDiscriminator(Config(), channels=3)
        scores = d(torch.empty(1, 3, 128, 128, 128))
    assert round(sum(p.numel() for p in d.parameters()) / 1e6, 2) == 11.06
    assert scores.shape == (1, 1, 19, 19, 19)


def test_layers_are_the_published_ones() -> None:
    layers = list(PatchDiscriminator(Config(base_channels=2), channels=3).modules())
    convolutions = [m for m in layers if isinstance(m, nn.Conv3d)]
    assert [(m.out_channels, m.stride[0], m.kernel_size[0], m.padding[0]) for m in convolutions] == [
        (2, 2, 4, 2), (4, 2, 4, 2), (8, 2, 4, 2), (16, 1, 4, 2), (1, 1, 4, 2)
    ]  # fmt: skip
    norms = [m for m in layers if isinstance(m, nn.InstanceNorm3d)]
    assert [(m.num_features, m.affine, m.track_running_stats) for m in norms] == [
        (4, False, False), (8, False, False), (16, False, False)
    ]  # fmt: skip
    assert all(not m.bias.any() for m in convolutions if m.bias is not None)


@pytest.mark.parametrize(("size", "side"), [(16, 5), (32, 7), (64, 11)])
def test_volume_and_views_both_count_and_samples_do_not_mix(size: int, side: int) -> None:
    torch.manual_seed(0)
    d = PatchDiscriminator(Config(base_channels=2), channels=3).double()
    pairs = torch.rand(2, 3, size, size, size, dtype=torch.float64, requires_grad=True)
    scores = d(pairs)
    assert scores.shape == (2, 1, side, side, side)
    (slope,) = torch.autograd.grad(scores[0].square().sum(), pairs)
    assert (slope[0].abs().sum((1, 2, 3)) > 0).all()
    assert not slope[1].any()


def test_scores_are_in_the_precision_of_the_weights() -> None:
    d = PatchDiscriminator(Config(base_channels=2), channels=2).to(torch.bfloat16)
    assert d(torch.rand(1, 2, 16, 16, 16)).dtype == torch.bfloat16
