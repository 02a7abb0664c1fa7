"""CCX-rayNet: the published count, each of its four additions, masks by threshold of a synthetic chest."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from xr2ct.cohorts.phantom.chest import draw_chest
from xr2ct.cohorts.phantom.grid import Grid
from xr2ct.cohorts.phantom.patient import draw_patient
from xr2ct.cohorts.phantom.shifts import SHIFTS
from xr2ct.config import validate
from xr2ct.errors import UserError
from xr2ct.models import ccx_raynet, x2ct_gan
from xr2ct.models.class_condition import BONES, LUNGS, ClassTransform, threshold_masks
from xr2ct.models.spatial_transformer import SpatialTransformer
from xr2ct.models.view_branch import ConnectionB
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project

SMALL: dict[str, Any] = {
    "encoder_channels": 4,
    "growth": 2,
    "blocks": (1, 1, 1, 1, 1),
    "bottom_channels": 8,
    "least_channels": 2,
    "condition_channels": 4,
    "conditions": 4,
}
ADDITIONS = ("depth_aware", "adaptive_fusion", "class_condition", "spatial_transformer")
GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)


def _millions(network: nn.Module) -> float:
    return round(sum(p.numel() for p in network.parameters()) / 1e6, 2)


@cache
def _published(**keys: Any) -> ccx_raynet.CcxRayNet:
    with torch.device("meta"):
        return ccx_raynet.build(ccx_raynet.Config(**keys), [0.0, 90.0], GEOMETRY, 128)


def _small(views: tuple[float, ...] = (0.0, 90.0), size: int = 16, **keys: Any) -> ccx_raynet.CcxRayNet:
    torch.manual_seed(0)
    network = ccx_raynet.build(ccx_raynet.Config(**{**SMALL, **keys}), views, GEOMETRY, size)
    return network.double().eval()


def _views(count: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return torch.rand(2, count, 32, 32, generator=generator, dtype=torch.float64)


def test_parameters_are_the_published_ones() -> None:
    assert _millions(_published()) == 62.51


def test_without_its_additions_it_is_x2ct_gan() -> None:
    off = dict.fromkeys(ADDITIONS, False)
    assert _millions(_published(**off)) == 61.74
    torch.manual_seed(0)
    plain = x2ct_gan.build(
        validate(x2ct_gan.Config, {k: v for k, v in SMALL.items() if "condition" not in k}, ""),
        [0.0, 90.0],
        GEOMETRY,
        16,
    )
    with torch.no_grad():
        assert torch.equal(_small(**off)(_views()), plain.double().eval()(_views()))


@pytest.mark.parametrize(
    ("addition", "thousands"),
    [
        ("depth_aware", 5.6),
        ("adaptive_fusion", 0.0),
        ("class_condition", 680.9),
        ("spatial_transformer", 85.5),
    ],
)
def test_each_addition_can_be_left_out(addition: str, thousands: float) -> None:
    whole, less = (
        sum(p.numel() for p in n.parameters()) for n in (_published(), _published(**{addition: False}))
    )
    assert round((whole - less) / 1e3, 1) == thousands


def test_every_weight_but_the_unused_heads_learns() -> None:
    network = _small().train()
    nn.init.normal_(network.warp.affine.weight, std=0.01)  # at its start no gradient passes through it
    views = _views().requires_grad_()
    volume = network(views)
    assert volume.shape == (2, 1, 16, 16, 16)
    (volume * torch.rand_like(volume)).sum().backward()
    assert (views.grad.abs().sum((0, 2, 3)) > 0).all()
    unused = {n for n, p in network.named_parameters() if p.grad is None}
    assert unused == {f"generator.branches.{v}.head.0.{w}" for v in (0, 1) for w in ("weight", "bias")}
    still = {n for n, p in network.named_parameters() if p.grad is not None and not p.grad.any()}
    assert not still


@pytest.mark.parametrize(("views", "size"), [((0.0,), 16), ((0.0, 90.0), 32), ((0.0, 90.0, 225.0), 16)])
def test_any_number_of_views_and_half_precision(views: tuple[float, ...], size: int) -> None:
    network = _small(views, size)
    seen = _views(len(views))
    with torch.no_grad():
        volume, rounded = network(seen), network.to(torch.bfloat16)(seen.float())
    assert volume.shape == (2, 1, size, size, size)
    assert rounded.dtype == torch.bfloat16
    assert 0 < (rounded - volume).norm() / volume.norm() < 0.1


def test_the_depth_aware_connection_is_what_3d_convolutions_of_the_copies_make() -> None:
    torch.manual_seed(0)
    connection = ConnectionB(5, 16, depth_aware=True)
    features = torch.rand(2, 5, 8, 8)
    copies = connection.flat(features).unsqueeze(2).expand(-1, -1, 8, -1, -1)
    first, _, second, _ = connection.mask
    inner = nn.functional.conv3d(copies, first.weight.unsqueeze(2), first.bias).relu()
    mask = nn.functional.conv3d(inner, second.weight.unsqueeze(2), second.bias).sigmoid()
    assert inner.shape[1] == 2
    torch.testing.assert_close(connection(features), connection.deep(copies + copies * mask))


def test_fusion_gates_the_sum_by_the_inner_product_over_channels() -> None:
    one, other = torch.randn(2, 2, 3, 4, 4, 4).unbind(0)
    fused = ccx_raynet.gated_sum([one, other])
    for place in ((0, 0, 0), (3, 1, 2)):
        a, b = one[(1, slice(None), *place)], other[(1, slice(None), *place)]
        torch.testing.assert_close(fused[(1, slice(None), *place)], (a @ b).sigmoid() * (a + b))
    torch.testing.assert_close(ccx_raynet.gated_sum([other, one]), fused)


def test_the_class_transform_scales_and_shifts_twice_at_each_pixel() -> None:
    torch.manual_seed(0)
    transform = ClassTransform(4, 3)
    x, condition = torch.randn(2, 3, 8, 8), torch.randn(2, 4, 8, 8)
    gain, shift = 1 + transform.scale(condition), transform.shift(condition)
    torch.testing.assert_close(transform(x, condition), x * gain**2 + shift * (gain + 1))
    moved = condition.clone()
    moved[:, :, 3, 5] += 1
    changed = (transform(x, moved) != transform(x, condition)).any(1)
    assert changed.nonzero()[:, 1:].tolist() == [[3, 5], [3, 5]]


def test_every_fifth_dense_layer_is_steered() -> None:
    encoder = _published().generator.branches[0].encoder
    layers = [layer for stage in encoder.stages for layer in stage.layers]
    steered = [number for number, layer in enumerate(layers) if layer.transform is not None]
    assert len(layers) == 64
    assert steered == list(range(0, 64, 5))


def test_masks_that_are_given_take_the_place_of_thresholds() -> None:
    network = _small()
    views = _views()
    masks = threshold_masks(network.generator.pictures(views))
    with torch.no_grad():
        found = network(views)
        assert torch.equal(network(views, masks=masks), found)
        assert not torch.equal(network(views, masks=masks.flip(-1)), found)
    with pytest.raises(UserError, match=r"masks: expected \(2, 2, 16, 16\), got \(2, 2, 32, 32\)"):
        network(views, masks=views)


@pytest.mark.parametrize("size", [16, 32, 64])
def test_the_spatial_transformer_starts_at_the_identity(size: int) -> None:
    warp = SpatialTransformer(size)
    warp.start_at_identity()
    volumes = torch.rand(1, 1, size, size, size)
    torch.testing.assert_close(warp(volumes), volumes, rtol=1e-4, atol=1e-4)


def test_the_spatial_transformer_has_the_published_features_and_moves_what_it_is_told_to() -> None:
    with torch.device("meta"):
        assert SpatialTransformer(128).layers[-2].in_features == 1250
    warp = SpatialTransformer(16)
    warp.start_at_identity()
    with torch.no_grad():
        warp.affine.bias[3] += 2 * 3 / 16  # reads from three voxels further along x
    volumes = torch.rand(2, 1, 16, 16, 16)
    moved = warp(volumes)
    torch.testing.assert_close(moved[..., :13], volumes[..., 3:], rtol=1e-4, atol=1e-4)
    assert moved[..., 13:].abs().max() < 1e-4  # air from outside
    assert warp.to(torch.bfloat16)(volumes.bfloat16()).dtype == torch.bfloat16


def test_the_network_starts_with_a_volume_that_is_not_warped() -> None:
    network = _small()
    with torch.no_grad():
        found = network(_views())
        network.warp = None
        torch.testing.assert_close(found, network(_views()))


def test_a_size_that_it_cannot_take_is_refused_in_its_own_name() -> None:
    with pytest.raises(UserError, match=r"data.size 24: ccx-raynet needs .* nearest is 32"):
        _small(size=24)


@cache
def _chest() -> tuple[Tensor, Tensor, Tensor]:
    """A synthetic chest's X-rays (1, view, row, col), frontal and lateral, and its mm of lung and of bone."""
    patient = replace(draw_patient(0, SHIFTS["lidc-idri"]), rotation=np.eye(3))
    grid = Grid((64, 64, 64), (5.0, 5.0, 5.0), np.eye(3), (0.0, 0.0, 0.0))
    hu, body = (torch.from_numpy(part) for part in draw_chest(grid, patient, 0))
    detector = replace(GEOMETRY, pixels=128)
    mu = torch.stack([attenuation(hu), ((hu < -500) & (body > 0.5)).float(), (hu > 250).float()])
    found = project(mu, (5.0, 5.0, 5.0), detector, [0.0, 90.0])
    views, lungs, bones = found.unsqueeze(1).unbind(0)
    return views, lungs, bones


def test_thresholds_find_lungs_and_the_spine_of_a_synthetic_chest() -> None:
    views, lung_mm, bone_mm = (part[:, :1] for part in _chest())
    masks = threshold_masks(views)
    assert masks.unique().tolist() == [0.0, LUNGS, BONES]
    thin, dense = masks == LUNGS, masks == BONES
    assert thin[lung_mm > 100].float().mean() > 0.95
    assert lung_mm[thin].mean() > 2 * lung_mm[~thin].mean()
    assert bone_mm[dense].mean() > 1.5 * bone_mm[~dense].mean()
    assert not masks[views < 0.05 * views.max()].any()  # air


def test_masks_are_of_each_picture_alone_at_any_brightness_and_contrast() -> None:
    views, _, _ = _chest()
    masks = threshold_masks(views)
    for one in (0, 1):
        assert torch.equal(threshold_masks(views[:, one : one + 1]), masks[:, one : one + 1])
    again = threshold_masks(0.5 * views + 1.7)
    assert (again != masks).float().mean() < 1e-3
    assert not threshold_masks(torch.full((1, 1, 8, 8), 3.0)).any()  # nothing to part
    assert torch.equal(threshold_masks(views.bfloat16()).unique().float(), masks.unique())
