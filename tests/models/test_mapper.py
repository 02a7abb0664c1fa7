"""The mapper: a lift and a backbone by name, with weights from the experiment's seed."""

from __future__ import annotations

import torch

from xr2ct.config import Experiment
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry

SMALL = {"name": "swin-unetr", "feature_size": 12, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2)}
GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)


def _experiment(seed: int = 0) -> Experiment:
    return Experiment(name="test", seed=seed, mapper=SMALL, data={"views": ["AP", 90, 45]})


def test_views_become_a_volume_in_the_precision_of_the_weights() -> None:
    mapper = build_mapper(_experiment(), GEOMETRY, 320.0)
    with torch.no_grad():
        views = torch.rand(1, 3, 32, 32)
        volume = mapper(views)
        assert volume.shape == (1, 1, 64, 64, 64)
        assert volume.dtype == torch.float32
        rounded = mapper.to(torch.bfloat16)(views)
    assert rounded.dtype == torch.bfloat16
    error = (rounded.float() - volume).norm() / volume.norm()
    assert 0 < error < 0.05


def test_only_the_backbone_is_saved() -> None:
    names = build_mapper(_experiment(), GEOMETRY, 320.0).state_dict()
    assert all(name.startswith("backbone.") for name in names)


def test_weights_follow_from_the_seed_alone() -> None:
    torch.manual_seed(1)
    one = build_mapper(_experiment(), GEOMETRY, 320.0).state_dict()
    torch.manual_seed(2)
    drawn = torch.rand(1)
    torch.manual_seed(2)
    again = build_mapper(_experiment(), GEOMETRY, 320.0).state_dict()
    assert all(torch.equal(value, again[name]) for name, value in one.items())
    assert torch.equal(torch.rand(1), drawn)  # and others' draws do not depend on it
    other = build_mapper(_experiment(seed=1), GEOMETRY, 320.0).state_dict()
    assert any(not torch.equal(value, other[name]) for name, value in one.items())


def test_a_second_pass_is_the_first_again_whatever_else_is_in_the_batch() -> None:
    """What accumulation relies on: it makes volumes first, and goes forward again to go back."""
    mapper = build_mapper(_experiment(), GEOMETRY, 320.0).train()
    views = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        both, alone, again = mapper(views), mapper(views[:1]), mapper(views[:1])
    assert torch.equal(alone, again)
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)


def test_a_network_that_takes_the_views_is_given_them_as_they_are_and_the_seeds() -> None:
    """Whatever the precision of its weights: what it resamples and draws is its own to decide."""
    keys = {"name": "autoencoder", "base_channels": 8, "max_channels": 8, "latent": 8}
    experiment = Experiment(name="test", mapper=keys, data={"size": 16, "views": ["AP", 90, 45]})
    mapper = build_mapper(experiment, GEOMETRY, 320.0).to(torch.bfloat16)
    assert mapper.lift is None
    given = []
    mapper.backbone.register_forward_pre_hook(lambda _, inputs: given.extend(inputs))
    views, seeds = torch.rand(2, 3, 32, 32), torch.tensor([[1, 2], [3, 4]])
    assert mapper(views, seeds).dtype == torch.bfloat16
    assert given[0] is views
    assert given[1] is seeds
