"""The Sinkhorn divergence against geomloss called plainly, and closed forms."""

from __future__ import annotations

import pytest
import torch
from geomloss import SamplesLoss
from synthetic_store import chest
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from xr2ct.models.features import Config as Features
from xr2ct.models.features import FeatureExtractor
from xr2ct.transport.sinkhorn import SinkhornDivergence


def _features(seed: int, dtype: torch.dtype = torch.float64, samples: int = 6) -> list[Tensor]:
    """Of two layers, away from the origin."""
    generator = torch.Generator().manual_seed(seed)
    return [5 + torch.randn(samples, n, generator=generator, dtype=torch.float64).to(dtype) for n in (40, 7)]


def _plain(x: list[Tensor], y: list[Tensor], blur: float = 0.05) -> Tensor:
    solve = SamplesLoss("sinkhorn", p=2, blur=blur)
    return torch.stack([solve(a, b) for a, b in zip(x, y, strict=True)]).sum()


@pytest.mark.parametrize("blur", [0.05, 2.0])
def test_value_and_gradient_are_geomloss_in_fp64(blur: float) -> None:
    x, y = _features(0), _features(1)
    ours, theirs = ([t.clone().requires_grad_() for t in x] for _ in range(2))
    value, plain = SinkhornDivergence(blur)(ours, y), _plain(theirs, y, blur)
    torch.testing.assert_close(value, plain, rtol=1e-9, atol=0)
    for a, b in zip(torch.autograd.grad(value, ours), torch.autograd.grad(plain, theirs), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_order_within_the_batch_does_not_matter() -> None:
    x, y = _features(0), _features(1)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    divergence = SinkhornDivergence()
    torch.testing.assert_close(divergence([t[order] for t in x], y), divergence(x, y), rtol=1e-12, atol=0)
    assert divergence(x, [t[order] for t in x]).abs() < 1e-9


def test_a_batch_of_one_is_half_the_squared_distance() -> None:
    x, y = _features(0, samples=1), _features(1, samples=1)
    half = sum(((a - b) ** 2).sum() / 2 for a, b in zip(x, y, strict=True))
    torch.testing.assert_close(SinkhornDivergence()(x, y), half, rtol=1e-9, atol=0)


def test_a_shift_of_two_distant_clouds_is_found() -> None:
    """Between a cloud and its translate the divergence is half the squared shift, whatever the blur."""
    (x, _), shift = _features(0), torch.full((40,), 3.0, dtype=torch.float64)
    value = SinkhornDivergence(blur=0.5)([x], [x + shift])
    torch.testing.assert_close(value, (shift**2).sum() / 2, rtol=2e-2, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_solved_in_fp32(dtype: torch.dtype) -> None:
    x, y = _features(0, dtype), _features(1, dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = SinkhornDivergence()(x, y)
    assert value.dtype == torch.float32
    exact = _plain([t.double() for t in x], [t.double() for t in y])
    assert value.item() == pytest.approx(exact.item(), rel=1e-3)


def test_features_far_from_the_origin_keep_their_digits() -> None:
    """In fp32, 1e4 away: uncentred, the squared distances would be off by more than the divergence."""
    x, y = ([t + 1e4 for t in _features(seed, torch.float32)] for seed in (0, 1))
    exact = _plain([t.double() for t in x], [t.double() for t in y])
    assert SinkhornDivergence()(x, y).item() == pytest.approx(exact.item(), rel=1e-3)
    assert _plain(x, y).item() != pytest.approx(exact.item(), rel=1e-3)


@pytest.mark.parametrize("features", [5000, 70001])
def test_points_are_worked_on_in_parts_and_none_is_lost(features: int) -> None:
    """More features than are taken at once, and not a multiple of anything."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(8, features, generator=generator, dtype=torch.float64) for _ in range(2))
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    value, plain = SinkhornDivergence(3.0)([ours], [y]), _plain([theirs], [y], 3.0)
    torch.testing.assert_close(value, plain, rtol=1e-9, atol=0)
    (a,), (b,) = torch.autograd.grad(value, ours), torch.autograd.grad(plain, theirs)
    torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_each_layer_has_its_own_blur_and_its_own_number_of_iterations() -> None:
    x, y = _features(0), _features(1)
    blurs = [0.05, 50.0]  # the second wider than the points lie apart
    expected = sum(_plain([a], [b], blur) for a, b, blur in zip(x, y, blurs, strict=True))
    torch.testing.assert_close(SinkhornDivergence(blurs)(x, y), expected, rtol=1e-9, atol=0)


@pytest.mark.parametrize("broken", [torch.nan, torch.inf])
def test_what_is_not_finite_comes_out_as_nan(broken: float) -> None:
    x, y = _features(0), _features(1)
    x[1][2, 3] = broken
    assert SinkhornDivergence()(x, y).isnan()


def test_samples_that_are_all_alike_have_no_divergence_and_no_gradient() -> None:
    x = torch.full((3, 7), 2.5, requires_grad=True)
    value = SinkhornDivergence()([x], [x.detach()])
    assert value == 0
    assert not torch.autograd.grad(value, x)[0].any()


def test_gradient_of_the_features_of_chests_in_fp32() -> None:
    """Of blurred chests towards sharp ones, to 1e-3 of fp64 in every layer."""
    f = FeatureExtractor(Features(), 0)
    real = (torch.stack([chest(i, "lidc-idri") for i in range(4)])[:, None] + 1024).div(2500).clamp(0, 1)
    f.calibrate([real], lambda summed: summed)
    with torch.no_grad():
        y, x = f(real), f(nn.functional.avg_pool3d(real.flip(0), 5, 1, 2))
    single, double = ([t.to(dtype).requires_grad_() for t in x] for dtype in (torch.float32, torch.float64))
    found = torch.autograd.grad(SinkhornDivergence()(single, y), single)
    exact = torch.autograd.grad(_plain(double, [t.double() for t in y]), double)
    for a, b in zip(found, exact, strict=True):
        assert (a - b).norm() < 1e-3 * b.norm()


def test_nothing_in_it_looks_at_the_numbers() -> None:
    """On tensors without data: what asks for a value raises there, as it would wait for a GPU."""
    with FakeTensorMode():
        x = torch.empty(4, 3000, requires_grad=True)
        value = SinkhornDivergence([0.05])([x], [torch.empty(4, 3000)])
        assert torch.autograd.grad(value, x)[0].shape == x.shape
