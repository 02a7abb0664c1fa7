"""The feature extractor: normalised, never trained, calibrated once and alike for any share of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

from xr2ct.models.features import Config, FeatureExtractor

SMALL = Config(widths=(4, 4, 8, 8))


def _volumes(samples: int = 6) -> Tensor:
    return torch.rand(samples, 1, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def test_every_voxel_of_every_layer_has_length_one() -> None:
    layers = FeatureExtractor(SMALL, 0)(_volumes(2))
    for layer, (channels, side) in zip(layers, [(4, 8), (4, 4), (8, 2), (8, 1)], strict=True):
        assert layer.shape == (2, channels * side**3)
        lengths = layer.unflatten(1, (channels, -1)).norm(dim=1)
        torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_empty_air_has_a_direction() -> None:
    (first, *_) = FeatureExtractor(SMALL, 0)(torch.zeros(1, 1, 16, 16, 16))
    lengths = first.unflatten(1, (4, -1)).norm(dim=1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))


def test_weights_follow_from_the_seed_and_nothing_else() -> None:
    torch.manual_seed(1)
    one = FeatureExtractor(SMALL, 5).state_dict()
    torch.manual_seed(2)
    assert all(torch.equal(v, one[k]) for k, v in FeatureExtractor(SMALL, 5).state_dict().items())
    assert not torch.equal(FeatureExtractor(SMALL, 6).convolutions[0].weight, one["convolutions.0.weight"])


def test_nothing_is_trained_and_training_mode_changes_nothing() -> None:
    f, volumes = FeatureExtractor(SMALL, 0), _volumes()
    assert not any(p.requires_grad for p in f.parameters())
    before = f(volumes)
    after = f.train()(volumes)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))


def test_calibration_is_what_batch_statistics_would_be() -> None:
    """On the calibration volumes themselves f is BatchNorm in training mode."""
    f, batch = (
        FeatureExtractor(SMALL, 0),
        FeatureExtractor(SMALL.model_copy(update={"statistics": "batch"}), 0),
    )
    volumes = _volumes()
    f.calibrate([volumes[:4], volumes[4:]], lambda total: total)
    for ours, theirs in zip(f(volumes), batch(volumes), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_a_sample_is_seen_alike_in_any_batch() -> None:
    f, volumes = FeatureExtractor(SMALL, 0), _volumes()
    f.calibrate([volumes], lambda total: total)
    for whole, alone in zip(f(volumes), f(volumes[:1]), strict=True):
        torch.testing.assert_close(whole[:1], alone)


def test_half_precision_around_it_changes_nothing() -> None:
    f, volumes = FeatureExtractor(SMALL, 0), _volumes()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = f(volumes)
    assert all(torch.equal(a, b) for a, b in zip(f(volumes), inside, strict=True))
