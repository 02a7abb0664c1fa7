"""What a detector makes of line integrals, against what physics says of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xr2ct.config import Detector, validate
from xr2ct.errors import UserError
from xr2ct.loading.detector import Response, draw_common, draw_response, respond
from xr2ct.seeds import generator

PIXEL_MM = 2.0
SIDE = 96


def taken(p: np.ndarray, **response: Any) -> np.ndarray:
    return respond(p, Response(**response), PIXEL_MM, generator(0, "noise"))


def slab(p: float = 2.0) -> np.ndarray:
    return np.full((SIDE, SIDE), p, np.float32)


@pytest.fixture
def picture() -> np.ndarray:
    """Air, and a body that grows thicker to its middle."""
    place = np.linspace(-1.2, 1.2, SIDE)
    return (5 * np.sqrt(np.clip(1 - place[:, None] ** 2 - place**2, 0, None))).astype(np.float32)


def test_a_perfect_detector_hands_line_integrals_on(picture: np.ndarray) -> None:
    found = taken(picture)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, picture, atol=2e-5)


@pytest.mark.parametrize("ratio", [0.5, 1.0, 3.0])
def test_scatter_lowers_contrast_by_one_plus_its_ratio(ratio: float) -> None:
    p = slab()
    p[40:44, 40:44] += 0.02
    found = taken(p, scatter=ratio)
    contrast = found[41, 41] - found[10, 10]
    assert contrast == pytest.approx(0.02 / (1 + ratio), rel=0.03)
    assert found[10, 10] == pytest.approx(2.0 - np.log(1 + ratio), abs=0.02)


def test_air_scatters_nothing() -> None:
    np.testing.assert_allclose(taken(slab(0), scatter=3.0), 0, atol=1e-6)


@pytest.mark.parametrize(("exposure", "electronic"), [(1e5, 0.0), (1e4, 0.0), (1e4, 40.0)])
def test_noise_has_the_variance_of_counted_photons(exposure: float, electronic: float) -> None:
    found = taken(slab(), exposure=exposure, electronic=electronic)
    photons = exposure * np.exp(-2.0)
    expected = (photons + electronic**2) / photons**2
    # Four standard errors of a variance.
    assert found.var(dtype=np.float64) == pytest.approx(expected, rel=4 * np.sqrt(2 / SIDE**2))
    assert found.mean(dtype=np.float64) == pytest.approx(2.0, abs=4 * np.sqrt(expected) / SIDE + expected)


def test_noise_grows_with_what_stands_in_the_beam(picture: np.ndarray) -> None:
    error = abs(taken(picture, exposure=1e5) - picture)
    assert error[picture > 4].mean() > 2 * error[(picture > 1) & (picture < 2)].mean()


def test_where_no_photon_arrives_the_picture_is_finite() -> None:
    found = taken(slab(30), exposure=1e4, electronic=3)
    assert np.isfinite(found).all()
    assert found.max() == pytest.approx(np.log(1e4), rel=1e-5)


@pytest.mark.parametrize("along_rows", [False, True])
def test_a_grid_cuts_off_linearly_to_one_side(along_rows: bool) -> None:
    place = np.linspace(0, 1, SIDE)
    for share, expected in ((0.3, 1 - 0.3 * place), (-0.3, 1 - 0.3 * place[::-1])):
        beam = np.exp(2 - taken(slab(), grid=share, along_rows=along_rows))
        np.testing.assert_allclose(beam.T if along_rows else beam, np.tile(expected, (SIDE, 1)), rtol=1e-5)


def test_a_grid_leaves_lines_of_its_depth_and_period() -> None:
    beam = np.exp(2 - taken(slab(), grid_lines=0.1, period=8.0, phase=0.25))
    assert beam.min() == pytest.approx(0.9, abs=0.02)
    assert abs(np.fft.rfft(beam[0] - beam.mean())).argmax() == SIDE / 8


def test_blur_has_the_width_asked_for() -> None:
    p = slab(0)
    p[48, 48] = 5
    lost = 1 - np.exp(-taken(p, blur_mm=4.0)[38:59, 38:59].astype(np.float64))
    mm = np.arange(-10, 11) * PIXEL_MM
    assert lost.sum() == pytest.approx(1 - np.exp(-5), rel=0.001)
    for axis in (0, 1):
        assert np.sqrt((lost.sum(axis) * mm**2).sum() / lost.sum()) == pytest.approx(4.0, rel=0.01)


def test_a_window_clips_its_share_and_does_not_know_the_offset() -> None:
    p = np.random.default_rng(0).uniform(1, 3, (SIDE, SIDE)).astype(np.float32)
    found = taken(p, window=(2.0, 5.0))
    assert (found == 0).mean() == pytest.approx(0.02, abs=0.001)
    assert (found == found.max()).mean() == pytest.approx(0.05, abs=0.001)
    np.testing.assert_allclose(taken(p + 1, window=(2.0, 5.0)), found, atol=1e-4)


def test_gamma_bends_the_scale_and_keeps_its_ends(picture: np.ndarray) -> None:
    top = picture.max()
    for gamma in (0.5, 2.0):
        np.testing.assert_allclose(taken(picture, gamma=gamma), (picture / top) ** gamma * top, atol=1e-2)


def test_behind_the_blades_is_nothing_and_between_them_all(picture: np.ndarray) -> None:
    found = taken(picture + 1, blades=(0.25, 0.0, 0.125, 0.25))
    opened = np.s_[24:, 12:72]
    np.testing.assert_allclose(found[opened], picture[opened] + 1, atol=1e-4)
    found[opened] = 0
    assert not found.any()


RANGES: dict[str, tuple[float, float]] = {
    "scatter": (0.2, 2.0),
    "grid": (0.1, 0.3),
    "grid_lines": (0.01, 0.05),
    "exposure": (1e4, 1e6),
    "electronic": (1.0, 5.0),
    "blur_mm": (0.5, 2.0),
    "gamma": (0.5, 2.0),
}


def drawn(told: Detector, position: int) -> Response:
    common = draw_common(told, generator(position, "common"))
    return draw_response(told, common, generator(position, "view"))


def test_draws_fill_the_ranges_told() -> None:
    told = Detector(**RANGES, window=(0.5, 2.0), collimation=(0.05, 0.15), collimation_probability=0.5)
    all_drawn = [drawn(told, p) for p in range(600)]
    for name, (low, high) in RANGES.items():
        values = np.array([abs(getattr(r, name)) for r in all_drawn])
        logarithm = name in ("exposure", "gamma")
        at = np.log(values / low) / np.log(high / low) if logarithm else (values - low) / (high - low)
        assert 0 <= at.min() < 0.05
        assert 0.95 < at.max() <= 1
        assert at.mean() == pytest.approx(0.5, abs=4 * np.sqrt(1 / 12 / 600))
    blades = np.array([r.blades for r in all_drawn])
    covered = blades.any(1)
    assert covered.mean() == pytest.approx(0.5, abs=4 * np.sqrt(0.25 / 600))
    assert blades[covered].min() >= 0.05
    assert blades.max() <= 0.15
    assert 0.4 < np.mean([r.grid > 0 for r in all_drawn]) < 0.6


def test_views_of_a_patient_share_their_machine_and_nothing_else() -> None:
    told = Detector(**RANGES)
    common = draw_common(told, generator(0, "common"))
    a, b = (draw_response(told, common, generator(0, "view", view)) for view in (0, 1))
    assert (a.exposure, a.gamma, a.blur_mm) == (b.exposure, b.gamma, b.blur_mm)
    assert a.scatter != b.scatter
    assert a.grid != b.grid


def test_switching_one_effect_off_leaves_the_others() -> None:
    every = drawn(Detector(**RANGES), 3)
    for name in RANGES:
        off = {name: None} | ({"electronic": None} if name == "exposure" else {})
        fewer = drawn(Detector(**RANGES | off), 3)
        for other in RANGES.keys() - off.keys():
            assert getattr(fewer, other) == getattr(every, other)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"scatter": [2, 1]}, r"scatter: expected \[least, most\]"),
        ({"scatter": [-1, 1]}, "scatter"),
        ({"exposure": [0, 1e5]}, "exposure: expected figures above 0"),
        ({"electronic": [1, 2]}, "electronic: .*needs exposure"),
        ({"collimation": [0.1, 0.5]}, "collimation: expected figures below 0.5"),
        ({"scater": [1, 2]}, "nearest.*scatter|scatter"),
    ],
)
def test_wrong_keys_are_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        validate(Detector, keys, "augmentation.detector")
