"""The backbones behind a lift and the autoencoder: sizes, parameters, gradients, seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.models import segresnet, unet
from xr2ct.models.mapper import Mapper, build_mapper
from xr2ct.projection.geometry import Geometry

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
SMALL: dict[str, dict[str, Any]] = {
    "unet": {"channels": (4, 8, 8)},
    "segresnet": {"init_filters": 8, "blocks_down": (1, 1), "blocks_up": (1,)},
    "autoencoder": {"base_channels": 8, "max_channels": 16, "latent": 12},
}
NETWORKS = pytest.mark.parametrize("name", SMALL)


def _mapper(name: str, seed: int = 0, size: int = 16, **keys: Any) -> Mapper:
    experiment = Experiment(
        name="test",
        seed=seed,
        mapper={"name": name, **SMALL[name], **keys},
        data={"size": size, "views": ["AP", 90, 45]},
    )
    return build_mapper(experiment, GEOMETRY, 320.0)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(("module", "millions"), [(unet, 19.30), (segresnet, 18.80)])
def test_parameters_with_two_views_are_as_documented_at_any_size(
    module: Any, size: int, millions: float
) -> None:
    with torch.device("meta"):
        network = module.build(module.Config(), in_channels=2, size=size)
    assert round(sum(p.numel() for p in network.parameters()) / 1e6, 2) == millions
    assert f"{millions:.2f} M parameters" in module.Config.__doc__


@NETWORKS
def test_views_become_a_volume_of_any_sign(name: str) -> None:
    """No activation at the output: values on both sides of 0 about what the head adds."""
    torch.manual_seed(0)
    volume = _mapper(name).train()(torch.rand(1, 3, 32, 32))
    assert volume.shape == (1, 1, 16, 16, 16)
    assert volume.min() < 0 < volume.max()


@NETWORKS
def test_gradients_reach_every_parameter_and_every_view(name: str) -> None:
    torch.manual_seed(0)
    mapper, views = _mapper(name), torch.rand(2, 3, 32, 32, requires_grad=True)
    mapper(views).square().mean().backward()
    for parameter, weight in mapper.named_parameters():
        assert weight.grad is not None, parameter
        assert weight.grad.isfinite().all(), parameter
        # InstanceNorm takes away what a bias before it adds, so only rounding is left of those.
        assert weight.ndim < 2 or weight.grad.abs().max() > 0, parameter
    assert views.grad is not None
    assert (views.grad.abs().sum((2, 3)) > 0).all()


@NETWORKS
def test_weights_follow_from_the_seed_alone(name: str) -> None:
    torch.manual_seed(1)
    one = _mapper(name).state_dict()
    torch.manual_seed(2)
    again, other = _mapper(name).state_dict(), _mapper(name, seed=1).state_dict()
    assert all(torch.equal(value, again[key]) for key, value in one.items())
    assert any(not torch.equal(value, other[key]) for key, value in one.items())


@NETWORKS
def test_a_second_pass_is_the_first_again_whatever_else_is_in_the_batch(name: str) -> None:
    """What accumulation relies on: it makes volumes first, and goes forward again to go back."""
    mapper, views = _mapper(name).train(), torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        both, alone, again = mapper(views), mapper(views[:1]), mapper(views[:1])
    assert torch.equal(alone, again)
    torch.testing.assert_close(both[:1], alone, rtol=1e-4, atol=1e-5)


@NETWORKS
def test_half_precision_is_the_weights(name: str) -> None:
    mapper, views = _mapper(name), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        volume = mapper(views)
        rounded = mapper.to(torch.bfloat16)(views)
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded.float() - volume).norm() / volume.norm() < 0.1


@NETWORKS
def test_weights_are_saved_once_each_and_load_again(name: str, tmp_path: Path) -> None:
    """As in a checkpoint: safetensors refuses a weight that two names share."""
    mapper, views = _mapper(name), torch.rand(1, 3, 32, 32)
    save_file(mapper.state_dict(), tmp_path / "mapper.safetensors")
    other = _mapper(name, seed=1)
    other.load_state_dict(load_file(tmp_path / "mapper.safetensors"))
    assert torch.equal(other(views), mapper(views))


@pytest.mark.parametrize(
    ("name", "keys", "size", "nearest"),
    [
        ("unet", {"channels": (4, 4, 4, 4, 4)}, 21, 24),
        ("unet", {"channels": (4, 4, 4, 4, 4, 4)}, 16, 32),  # a last level of one voxel: InstanceNorm
        ("segresnet", {"blocks_down": (1, 1, 1, 1), "blocks_up": (1, 1, 1)}, 27, 24),
        ("segresnet", {"blocks_down": (1,) * 6, "blocks_up": (1,) * 5}, 16, 32),
        ("autoencoder", {}, 20, 16),
        ("autoencoder", {}, 100, 96),
        ("autoencoder", {}, 63, 64),
    ],
)
def test_a_size_that_a_network_cannot_take_is_refused_and_the_nearest_works(
    name: str, keys: dict[str, Any], size: int, nearest: int
) -> None:
    with pytest.raises(UserError, match=rf"data.size {size}: {name} needs .* nearest is {nearest}$"):
        _mapper(name, size=size, **keys)
    if nearest <= 32:
        volume = _mapper(name, size=nearest, **keys).train()(torch.rand(1, 3, 32, 32))
        assert volume.shape == (1, 1, nearest, nearest, nearest)


@pytest.mark.parametrize(
    ("name", "keys", "message"),
    [
        ("unet", {"channels": (8,)}, "channels"),
        ("unet", {"channel": (8, 8)}, "did you mean 'channels'"),
        ("segresnet", {"init_filters": 12}, "multiple of 8"),
        ("segresnet", {"blocks_down": (1, 1, 1), "blocks_up": (1,)}, "one level less than blocks_down, 2"),
        ("autoencoder", {"max_channels": 12}, "multiple of 8"),
        ("autoencoder", {"base_channels": 32, "max_channels": 16}, "above max_channels"),
    ],
)
def test_keys_that_a_network_cannot_take_are_refused(name: str, keys: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=rf"mapper {name}: .*{message}"):
        _mapper(name, **keys)


@pytest.mark.parametrize("num_res_units", [0, 2])
def test_the_unet_normalises_features_and_not_the_volume(num_res_units: int) -> None:
    """Else every patient's volume would come to the same mean and deviation."""
    network = unet.build(unet.Config(channels=(4, 8, 8), num_res_units=num_res_units), in_channels=1, size=16)
    norms = [m for m in network.modules() if isinstance(m, torch.nn.InstanceNorm3d)]
    assert norms
    assert min(norm.num_features for norm in norms) == 4
    assert network(torch.rand(1, 1, 16, 16, 16)).shape == (1, 1, 16, 16, 16)


@pytest.mark.parametrize("pixels", [7, 32, 256])
def test_the_autoencoder_codes_pictures_of_any_size(pixels: int) -> None:
    geometry = Geometry("g", 541.0, 949.0, 500.0, pixels=pixels)
    experiment = Experiment(
        name="test", mapper={"name": "autoencoder", **SMALL["autoencoder"]}, data={"size": 24}
    )
    with torch.no_grad():
        volume = build_mapper(experiment, geometry, 320.0)(torch.rand(1, 2, pixels, pixels))
    assert volume.shape == (1, 1, 24, 24, 24)
