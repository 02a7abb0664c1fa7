"""Resampling against closed forms: weights, means, centroids, pattern finer than the new voxels."""

from __future__ import annotations

import numpy as np
import pytest

from xr2ct.cohorts.resample import axis_weights, resample

AXES = [
    # count, spacing_mm, first_edge_mm, voxel_mm, size
    (100, 0.7, -0.35, 5.0, 14),
    (60, 2.5, 3.3, 1.0, 90),
    (37, 3.0, 10.1, 3.0, 20),
    (40, 0.9, -7.0, 2.2, 30),
]


@pytest.mark.parametrize("axis", AXES)
def test_weights_are_means_of_linear_interpolation(axis):
    """By brute force: 2000 interpolated points a voxel, air beyond the samples counted as zero."""
    count, spacing, edge, voxel, size = axis
    rng = np.random.default_rng(0)
    samples = rng.normal(size=count)
    padded = np.concatenate([[0.0], samples, [0.0]])
    places = np.arange(-1, count + 1) * spacing
    points = edge + voxel * (np.arange(size)[:, None] + (np.arange(2000) + 0.5) / 2000)
    expected = np.interp(points, places, padded, left=0, right=0).mean(axis=1)
    np.testing.assert_allclose(axis_weights(*axis) @ samples, expected, atol=2e-5)


def test_mass_is_kept_exactly():
    """Over a range that holds all of the scan, every sample's weights sum to spacing / voxel."""
    weights = axis_weights(50, 0.8, -6.0, 3.7, 16).toarray()
    np.testing.assert_allclose(weights.sum(axis=0), 0.8 / 3.7, rtol=1e-6)


def test_constants_and_ramps_stay():
    z, y, x = np.meshgrid(np.arange(40), np.arange(70), np.arange(80), indexing="ij")
    spacing = (3.0, 1.1, 0.9)
    ramp = (4.0 * 3.0 * z - 3.0 * 1.1 * y + 5.0 * 0.9 * x).astype(np.float32)
    for voxel, size in [(5.0, 10), (1.0, 50)]:
        found = resample(ramp, spacing, (20.0, 10.0, 8.0), voxel, size)
        centre = voxel * (np.arange(size) + 0.5)
        expected = 4 * (20 + centre[:, None, None]) - 3 * (10 + centre[:, None]) + 5 * (8 + centre)
        assert np.abs(found - expected).max() <= 0.51


@pytest.mark.parametrize("period_mm", [1.4, 2.1, 3.0])
def test_pattern_finer_than_the_voxel_averages_out(period_mm):
    """Taken point by point it would come back as a coarse pattern of full height."""
    spacing = (2.0, 0.7, 0.7)
    y, x = np.meshgrid(np.arange(240) * 0.7, np.arange(240) * 0.7, indexing="ij")
    pattern = 500 * np.sign(np.sin(2 * np.pi * x / period_mm + 0.3) * np.sin(2 * np.pi * y / period_mm + 0.7))
    hu = np.broadcast_to(pattern, (80, 240, 240)).astype(np.int16)
    found = resample(hu, spacing, (2.0, 2.0, 2.0), 5.0, 30)
    assert abs(float(found.mean()) - float(hu.mean())) < 15
    assert found.std() < 0.05 * hu.std()


def test_noise_falls_as_the_number_of_voxels_averaged():
    rng = np.random.default_rng(1)
    hu = rng.normal(0, 200, (60, 150, 150)).astype(np.float32)
    found = resample(hu, (2.5, 0.8, 0.8), (5.0, 5.0, 5.0), 5.0, 22)
    averaged = (5 / 2.5) * (5 / 0.8) ** 2
    assert found.std() < 1.05 * 200 / np.sqrt(averaged)
    assert found.std() > 0.5 * 200 / np.sqrt(averaged)


@pytest.mark.parametrize("size", [32, 64, 100])
def test_a_sphere_keeps_volume_and_centroid(size):
    spacing = (2.5, 0.9, 0.7)
    centre, radius = np.array([61.3, 58.1, 63.7]), 31.0
    grids = np.meshgrid(
        *(np.arange(n) * s for n, s in zip((50, 140, 180), spacing, strict=True)), indexing="ij"
    )
    distance = np.sqrt(sum((g - c) ** 2 for g, c in zip(grids, centre, strict=True)))
    hu = np.where(distance < radius, 0, -1024).astype(np.int16)
    mass = (hu + 1024.0) / 1024

    found = resample(hu, spacing, (-3.0, -3.0, -3.0), 130.0 / size, size)

    kept = (found + 1024.0) / 1024
    voxel = 130.0 / size
    volume = kept.sum() * voxel**3
    assert volume == pytest.approx(mass.sum() * np.prod(spacing), rel=1e-3)
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=5e-3)
    centroid = [
        (kept.sum(axis=tuple(a for a in range(3) if a != axis)) @ (np.arange(size) + 0.5))
        * voxel
        / kept.sum()
        - 3
        for axis in range(3)
    ]
    np.testing.assert_allclose(centroid, centre, atol=0.1)


def test_beyond_the_scan_is_air():
    found = resample(np.full((20, 30, 30), 40, np.int16), (2.0, 1.0, 1.0), (-40.0, -20.0, -20.0), 2.0, 40)
    assert found.dtype == np.int16
    inside = np.zeros(found.shape, bool)
    inside[21:39, 11:24, 11:24] = True
    assert (found[inside] == 40).all()
    outside = np.ones(found.shape, bool)
    outside[19:, 9:26, 9:26] = False
    assert (found[outside] == -1024).all()


def test_a_scan_wholly_outside_is_all_air():
    assert (resample(np.zeros((4, 4, 4), np.int16), (1.0, 1.0, 1.0), (90.0, 0.0, 0.0), 1.0, 8) == -1024).all()
