"""The 2D-3D autoencoder: views meet in a code, and the volume is made of the code alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from xr2ct.errors import UserError
from xr2ct.models.autoencoder import Autoencoder, Config, build
from xr2ct.projection.geometry import NAMED, Geometry

SMALL = {"base_channels": 8, "max_channels": 16, "latent": 12}
GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
VIEWS = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))


def _network(l2_normalise: bool = False) -> Autoencoder:
    torch.manual_seed(0)
    network = build(Config(**SMALL, l2_normalise=l2_normalise), (0.0, 90.0, 45.0), GEOMETRY, 16)
    assert isinstance(network, Autoencoder)
    return network


def _codes(network: Autoencoder, views: Tensor) -> Tensor:
    """What the decoder is given, (b, view, latent)."""
    seen: list[Tensor] = []
    handle = network.decoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    network(views)
    handle.remove()
    return seen[0].detach().unflatten(1, (views.shape[1], -1))


def test_parameters_with_two_views_are_as_documented() -> None:
    with torch.device("meta"):
        network = build(Config(), (90.0, 0.0), NAMED["x2ct"], 64)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == 25.65
    assert Config.__doc__ is not None
    assert "25.65 M parameters" in Config.__doc__


def test_each_view_is_coded_by_itself_and_by_the_same_encoder() -> None:
    network = _network()
    codes = _codes(network, VIEWS)
    assert codes.shape == (2, 3, 12)
    torch.testing.assert_close(_codes(network, VIEWS[:, [2, 0, 1]]), codes[:, [2, 0, 1]])
    changed = VIEWS.clone()
    changed[:, 1] = torch.rand(2, 32, 32)
    recoded = _codes(network, changed)
    torch.testing.assert_close(recoded[:, [0, 2]], codes[:, [0, 2]])
    assert not torch.allclose(recoded[:, 1], codes[:, 1])


def test_the_volume_depends_on_which_view_is_which() -> None:
    network = _network()
    assert not torch.allclose(network(VIEWS), network(VIEWS.flip(1)), atol=1e-4)


def test_the_volume_is_made_of_the_code_alone() -> None:
    """No skip: with the encoder's last layer silent every patient gets the same volume."""
    network = _network()
    torch.nn.init.zeros_(network.encoder.head.weight)
    volumes = network(VIEWS)
    torch.testing.assert_close(volumes[0], volumes[1])


def test_l2_normalised_codes_have_length_one_and_the_same_direction() -> None:
    plain, normalised = _codes(_network(), VIEWS), _codes(_network(l2_normalise=True), VIEWS)
    lengths = normalised.norm(dim=-1)
    torch.testing.assert_close(lengths, torch.ones_like(lengths))
    assert not torch.allclose(plain.norm(dim=-1), lengths, atol=0.05)
    torch.testing.assert_close(normalised * plain.norm(dim=-1, keepdim=True), plain)


def test_wrong_views_are_refused() -> None:
    for shape in ((1, 2, 32, 32), (1, 3, 32, 64), (3, 32, 32)):
        with pytest.raises(UserError, match=r"expected \(batch, 3, 32, 32\), got"):
            _network()(torch.zeros(shape))
