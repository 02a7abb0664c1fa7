"""The Sinkhorn divergence against geomloss called plainly, and closed forms."""

from __future__ import annotations

import pytest
import torch
from geomloss import SamplesLoss
from torch import Tensor

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
