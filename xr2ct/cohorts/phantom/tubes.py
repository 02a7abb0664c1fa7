"""Vessels, airways and ribs: many tapering segments, drawn at once by depositing their volume in the voxels.

Depositing is exact for what is thinner than a voxel: a small vessel keeps its integral, so it shows in a
projection as it should.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import CubicSpline

from xr2ct.cohorts.phantom.grid import Array, Grid, Region, blend

GOLDEN_ANGLE = np.pi * (3 - np.sqrt(5))


@dataclass(frozen=True)
class Tubes:
    """Segments with a radius at each end, round or flattened."""

    start: Array
    """(n, 3) patient (x, y, z) in mm."""
    end: Array
    """(n, 3)."""
    start_radius: Array
    """(n,) mm."""
    end_radius: Array
    """(n,)."""
    tall: Array | None = None
    """(n, 3) unit vectors along which the cross-section is taller; round where None."""
    tallness: float = 1.0
    """Height over thickness of a flattened cross-section."""

    def scaled(self, factor: float, less_mm: float = 0.0) -> Tubes:
        """The same with radii multiplied, then reduced."""
        radii = [np.maximum(r * factor - less_mm, 0) for r in (self.start_radius, self.end_radius)]
        return Tubes(self.start, self.end, radii[0], radii[1], self.tall, self.tallness)


def join(parts: Sequence[Tubes]) -> Tubes:
    """Round tubes as one; flattened ones only with others of the same flattening."""
    tall = None if parts[0].tall is None else np.concatenate([t.tall for t in parts if t.tall is not None])
    return Tubes(
        np.concatenate([t.start for t in parts]),
        np.concatenate([t.end for t in parts]),
        np.concatenate([t.start_radius for t in parts]),
        np.concatenate([t.end_radius for t in parts]),
        tall,
        parts[0].tallness,
    )


def curve(points: Array, steps: int) -> Array:
    """(n, 3) → (steps, 3): a cubic spline through the points, by chord length."""
    points = np.asarray(points, float)
    chord = np.concatenate([[0], np.cumsum(np.linalg.norm(np.diff(points, axis=0), axis=1))])
    return CubicSpline(chord, points)(np.linspace(0, chord[-1], steps))


def path(points: Array, radii: Sequence[float] | Array | float, steps: int = 0) -> Tubes:
    """A tube along points (n, 3), smoothed by `curve` where `steps` is given."""
    points = np.asarray(points, float)
    radius = np.broadcast_to(np.asarray(radii, float), len(points))
    if steps:
        radius = np.interp(np.linspace(0, 1, steps), np.linspace(0, 1, len(radius)), radius)
        points = curve(points, steps)
    return Tubes(points[:-1], points[1:], radius[:-1], radius[1:])


def flat_path(points: Array, radii: Sequence[float] | Array | float, tall: Array, tallness: float) -> Tubes:
    """A flattened tube along points (n, 3); `tall` (3,) or (n − 1, 3), made square to the path."""
    round_ = path(points, radii)
    along = _unit(round_.end - round_.start)
    tall = np.broadcast_to(tall, along.shape)
    tall = _unit(tall - (tall * along).sum(1, keepdims=True) * along)
    return Tubes(round_.start, round_.end, round_.start_radius, round_.end_radius, tall, tallness)


def _unit(vectors: Array) -> Array:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


@dataclass(frozen=True)
class Deposit:
    """The fraction of each voxel that something fills, over the box that holds it."""

    box: tuple[slice, slice, slice]
    share: Array

    def into(self, hu: Array, value: float) -> None:
        """Put that tissue into a whole scan's HU."""
        blend(hu[self.box], value, self.share)

    def over(self, region: Region) -> Array:
        """The shares over a region's voxels."""
        out = np.zeros(region.shape, np.float32)
        _, there = region.cut(self.box)
        _, here = Region(region.grid, self.box).cut(region.slices)
        out[there] = self.share[here]
        return out


def deposit(grid: Grid, tubes: Tubes) -> Deposit:
    """Fill the tubes with points and splat them."""
    points, volumes = _fill(tubes, 0.75 * grid.edge_mm)
    return splat(grid, points, volumes)


def splat(grid: Grid, points: Array, volumes: Array) -> Deposit:
    """Share points' volumes (mm³) among the eight voxels around each; no voxel is more than full."""
    index = grid.index(points)
    inside = ((index > 0) & (index < np.array(grid.shape) - 1)).all(1)
    if not inside.any():
        return Deposit((slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0), np.float32))
    index, volumes = index[inside], volumes[inside] / np.prod(grid.spacing_mm)
    low = index.astype(np.int64)
    t = index - low
    first = low.min(0)
    shape = low.max(0) - first + 2
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    flat = (low - first) @ strides
    weights = [np.stack([1 - t[:, k], t[:, k]]) for k in range(3)]
    places, shares = [], []
    for i, j, k in np.ndindex(2, 2, 2):
        places.append(flat + (i * strides[0] + j * strides[1] + k))
        shares.append(volumes * weights[0][i] * weights[1][j] * weights[2][k])
    total = np.bincount(np.concatenate(places), np.concatenate(shares), minlength=int(np.prod(shape)))
    z, y, x = (slice(int(a), int(a + n)) for a, n in zip(first, shape, strict=True))
    return Deposit((z, y, x), np.minimum(total, 1).astype(np.float32).reshape(shape))


def _fill(tubes: Tubes, step_mm: float) -> tuple[Array, Array]:
    """Points spread evenly through the tubes, and the volume in mm³ that each stands for."""
    length = np.linalg.norm(tubes.end - tubes.start, axis=1)
    pieces = np.maximum(np.ceil(length / step_mm), 1).astype(int)
    segment = np.repeat(np.arange(len(length)), pieces)
    t = (_counter(pieces) + 0.5) / pieces[segment]
    radius = tubes.start_radius[segment] * (1 - t) + tubes.end_radius[segment] * t
    area = np.pi * radius**2 * tubes.tallness
    spots = np.maximum(np.round(area / step_mm**2), 1).astype(int)
    disc = np.repeat(np.arange(len(segment)), spots)
    nth = _counter(spots)
    # a sunflower's seeds: even over the disc for any number of them
    r = radius[disc] * np.sqrt((nth + 0.5) / spots[disc])
    angle = nth * GOLDEN_ANGLE + 2.4 * disc
    along = _unit(tubes.end - tubes.start)
    if tubes.tall is None:
        other = np.where(np.abs(along[:, 2:]) < 0.8, [[0.0, 0, 1]], [[1.0, 0, 0]])
        tall = _unit(np.cross(along, other))
    else:
        tall = tubes.tall
    side = np.cross(along, tall)
    s, t = segment[disc], t[disc, None]
    points = tubes.start[s] * (1 - t) + tubes.end[s] * t
    points += (r * np.cos(angle) * tubes.tallness)[:, None] * tall[s] + (r * np.sin(angle))[:, None] * side[s]
    volume = (area * (length / pieces)[segment] / spots)[disc]
    return points, volume


def _counter(counts: Array) -> Array:
    """[2, 3] → [0, 1, 0, 1, 2]."""
    return np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)


def grow_tree(
    root: Array, tips: Array, tip_radius: float, rng: np.random.Generator, murray: float = 2.9
) -> Tubes:
    """A tree from `root` (3,) to every one of `tips` (n, 3).

    Each branch heads for the middle of the tips it feeds and forks across their widest extent; a branch
    that feeds n tips has radius tip_radius · n^(1/murray) (Murray's law; exponent 3 in theory).
    """
    tips = np.asarray(tips, float)
    group = np.zeros(len(tips), int)
    at, before = np.asarray(root, float)[None], np.array([len(tips)])
    segments: list[tuple[Array, Array, Array, Array]] = []
    while len(tips):  # one generation of branches at a time
        size = np.bincount(group)
        middle = _group_sums(group, tips) / size[:, None]
        reach = np.where(size == 1, 1.0, rng.uniform(0.35, 0.55, len(size)))[:, None]
        fork = at + reach * (middle - at)
        length = np.linalg.norm(fork - at, axis=1, keepdims=True)
        bend = (at + fork) / 2 + 0.05 * length * rng.standard_normal(fork.shape)
        segments += [(at, bend, np.minimum(before, 2 * size), size), (bend, fork, size, size)]
        share = rng.uniform(0.3, 0.7, len(size))
        forked = size[group] > 1
        tips, group = tips[forked], group[forked]
        spread = tips - middle[group]
        widest = np.argmax(_group_sums(group, spread**2, len(size)), axis=1)
        order = np.lexsort((spread[np.arange(len(tips)), widest[group]], group))
        tips, group = tips[order], group[order]
        cut = np.clip(np.round(share * size), 1, np.maximum(size - 1, 1))
        second = _counter(size[size > 1]) >= cut[group]
        child, group = np.unique(2 * group + second, return_inverse=True)
        at, before = fork[child // 2], size[child // 2]
    start, end, fed, fed_on = (np.concatenate(part) for part in zip(*segments, strict=True))
    return Tubes(start, end, tip_radius * fed ** (1 / murray), tip_radius * fed_on ** (1 / murray))


def _group_sums(group: Array, values: Array, groups: int = 0) -> Array:
    """(groups, 3) sums of (n, 3) values by group."""
    return np.stack([np.bincount(group, v, minlength=groups) for v in values.T], 1)
