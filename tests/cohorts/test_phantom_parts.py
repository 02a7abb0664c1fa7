"""Shapes, tubes and noise that chests are made of, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from xr2ct.cohorts.phantom.grid import Grid, Region, blend
from xr2ct.cohorts.phantom.shapes import FAR, capsules, ellipsoid, superellipse, union
from xr2ct.cohorts.phantom.tubes import Tubes, deposit, flat_path, grow_tree, path
from xr2ct.seeds import generator

TURN = np.array([[0.96, -0.28, 0.0], [0.28, 0.96, 0.0], [0.0, 0.0, 1.0]])


@pytest.fixture(scope="module")
def grid() -> Grid:
    return Grid((40, 50, 60), (3.0, 2.0, 2.0), TURN, (5.0, -3.0, 10.0))


@pytest.fixture(scope="module")
def whole(grid: Grid) -> Region:
    return Region(grid, (slice(0, 40), slice(0, 50), slice(0, 60)))


def test_coordinates_and_indices_are_inverse(grid: Grid, whole: Region) -> None:
    index = np.array([[0, 0, 0], [39, 0, 59], [12, 33, 7]], float)
    points = grid.patient(index)
    np.testing.assert_allclose(grid.index(points), index, atol=1e-9)
    z, y, x = index.astype(int).T
    seen = np.stack([whole.x[z, y, x], whole.y[z, y, x], whole.z[z, y, x]], 1)
    np.testing.assert_allclose(seen, points, atol=1e-4)


def test_a_region_holds_all_of_its_box(grid: Grid, whole: Region) -> None:
    low, high = np.array([-20.0, -10, 0]), np.array([15.0, 20, 25])
    box, local = whole.within(low, high)
    inside = np.ones(whole.shape, bool)
    for axis, values in enumerate((whole.x, whole.y, whole.z)):
        inside &= (values >= low[axis]) & (values <= high[axis])
    outside = inside.copy()
    outside[local] = False
    assert inside.any() and not outside.any()
    np.testing.assert_array_equal(box.x, whole.x[local])


def test_ellipsoid_is_an_exact_sphere_and_covers_its_volume(grid: Grid, whole: Region) -> None:
    centre, radius = np.array([2.0, 1.0, 12.0]), 21.0
    distance = ellipsoid(whole, centre, (radius,) * 3)
    r = np.sqrt((whole.x - 2) ** 2 + (whole.y - 1) ** 2 + (whole.z - 12) ** 2)
    np.testing.assert_allclose(distance, r - radius, atol=2e-3)
    volume = whole.coverage(distance).sum() * np.prod(grid.spacing_mm)
    assert volume == pytest.approx(4 / 3 * np.pi * radius**3, rel=0.01)


def test_capsules_are_the_distance_to_the_nearest_segment(grid: Grid, whole: Region) -> None:
    tube = path(np.array([(-20.0, -10, 0), (10.0, 5, 20)]), [4.0, 4.0])
    distance = capsules(whole, tube, reach_mm=10)
    a, b = tube.start[0], tube.end[0]
    points = np.stack([whole.x, whole.y, whole.z], -1).astype(float)
    t = np.clip(((points - a) @ (b - a)) / ((b - a) @ (b - a)), 0, 1)
    exact = np.linalg.norm(points - a - t[..., None] * (b - a), axis=-1) - 4
    near = exact < 9
    np.testing.assert_allclose(distance[near], exact[near], atol=1e-3)
    assert ((distance == FAR) | (np.abs(distance - exact) < 1e-3)).all()
    assert (distance == FAR).any()


def test_superellipse_is_zero_where_its_axes_end() -> None:
    dx, dy = np.array([30.0, 0.0, 15.0, 60.0]), np.array([0.0, 20.0, 0.0, 0.0])
    np.testing.assert_allclose(superellipse(dx, dy, 30.0, 20.0), [0, 0, -15, 30], atol=0.1)


def test_union_is_the_minimum_far_from_the_seam() -> None:
    a, b = np.array([-30.0, 0.0, 30.0]), np.array([30.0, 0.0, -30.0])
    np.testing.assert_allclose(union(a, b, 10.0), [-30, -2.5, -30])


@pytest.mark.parametrize("radius", [0.3, 1.0, 6.0])
def test_deposit_keeps_a_tubes_volume(grid: Grid, radius: float) -> None:
    tube = path(np.array([(-25.0, -12, -8), (20.0, 15, 30)]), radius)
    length = np.linalg.norm(tube.end[0] - tube.start[0])
    share = deposit(grid, tube).share
    assert share.sum() * np.prod(grid.spacing_mm) == pytest.approx(np.pi * radius**2 * length, rel=0.02)
    assert share.max() <= 1


def test_a_flat_tube_is_taller_along_its_axis(grid: Grid) -> None:
    rib = flat_path(np.array([(-20.0, 0, 10), (20.0, 0, 10)]), 3.0, np.array([0.0, 0, 1]), 3.0)
    filled = deposit(grid, rib)
    index = np.argwhere(filled.share > 0.5) + [s.start for s in filled.box]
    points = grid.patient(index)
    assert np.ptp(points[:, 2]) > 1.8 * np.ptp((points[:, 1] + 0.0)[np.abs(points[:, 0]) < 3])


def test_deposit_outside_the_scan_is_nothing(grid: Grid) -> None:
    tube = path(np.array([(900.0, 0, 0), (950.0, 0, 0)]), 5.0)
    hu = np.zeros(grid.shape, np.float32)
    deposit(grid, tube).into(hu, 100.0)
    assert not hu.any()


def test_a_tree_reaches_every_tip_and_follows_murrays_law() -> None:
    tips = np.random.default_rng(0).uniform(-50, 50, (64, 3))
    tree = grow_tree(np.array([0.0, 0, 100]), tips, 0.5, generator(0, "tree"), murray=3.0)
    reached = {tuple(np.round(e, 6)) for e in tree.end}
    assert {tuple(np.round(t, 6)) for t in tips} <= reached
    np.testing.assert_array_equal(tree.start[0], [0, 0, 100])
    assert tree.start_radius[0] == pytest.approx(0.5 * 64 ** (1 / 3))
    assert (tree.end_radius <= tree.start_radius).all()
    _connected(tree)


def _connected(tree: Tubes) -> None:
    ends = {tuple(np.round(e, 6)) for e in tree.end} | {tuple(tree.start[0])}
    assert all(tuple(np.round(s, 6)) in ends for s in tree.start)


def test_noise_has_unit_variance_and_continues_from_box_to_box(grid: Grid, whole: Region) -> None:
    large = Region(
        Grid((120, 120, 120), (1.0, 1.0, 1.0), np.eye(3), (0, 0, 0)),
        (slice(0, 120), slice(0, 120), slice(0, 120)),
    )
    assert large.noise(generator(1, "n"), 8.0).std() == pytest.approx(1, abs=0.08)
    one = whole.noise(generator(2, "n"), 12.0)
    parts = [slab.noise(generator(2, "n"), 12.0) for slab in _slabs(grid)]
    np.testing.assert_array_equal(np.concatenate(parts), one)


def _slabs(grid: Grid) -> list[Region]:
    return [Region(grid, (slice(z, z + 8), slice(0, 50), slice(0, 60))) for z in range(0, 40, 8)]


def test_blend_mixes_by_the_share_filled() -> None:
    hu = np.full((2, 2, 2), -1000, np.float32)
    blend(hu, 1000.0, np.array([0, 0.25, 0.5, 1] * 2, np.float32).reshape(2, 2, 2))
    np.testing.assert_allclose(hu[0].ravel(), [-1000, -500, 0, 1000])
