"""Lungs: where they are, their tissue, and the trees of arteries, veins and bronchi that fill them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xr2ct.cohorts.phantom.grid import Array, Region, blend
from xr2ct.cohorts.phantom.mediastinum import Mediastinum, hilum, room
from xr2ct.cohorts.phantom.patient import Patient
from xr2ct.cohorts.phantom.shapes import ellipsoid, intersection
from xr2ct.cohorts.phantom.tubes import Tubes, deposit, grow_tree, join

ARTERY_TIPS, VEIN_TIPS, AIRWAY_TIPS = 520, 380, 50
TIP_RADIUS_MM = 0.72


@dataclass(frozen=True)
class Lungs:
    """Both lungs over a box of voxels."""

    region: Region
    distance: Array
    """Negative where there is air to breathe (mm)."""
    from_ribs: Array
    """Distance to the rib cage, negative inside it."""
    middle: float
    """x of the plane between right and left lung."""

    @property
    def coverage(self) -> Array:
        return self.region.coverage(self.distance)

    def spots(self, rng: np.random.Generator, count: int, deeper_mm: float, side: int = 0) -> Array:
        """(n, 3) random places at least so deep in the lungs, or in one; fewer where there is no room."""
        flat = np.flatnonzero(self.distance < -deeper_mm)
        drawn = flat[rng.integers(0, max(len(flat), 1), 8 * count)] if len(flat) else flat
        index = np.stack(np.unravel_index(drawn, self.distance.shape), 1)
        offset = [s.start for s in self.region.slices]
        points = self.region.grid.patient(index + offset + rng.uniform(-0.5, 0.5, index.shape))
        if side:
            points = points[side * (points[:, 0] - self.middle) > 0]
        return points[:count]


def midline(p: Patient) -> float:
    """x of the plane between the lungs."""
    return 3 + 0.7 * p.mediastinal_shift


def find_lungs(region: Region, cage: Array, below: Array, spine: Array, m: Mediastinum, p: Patient) -> Lungs:
    """What is inside the ribs, above the diaphragm, and neither mediastinum nor spine."""
    hollow = intersection(np.maximum(cage + 2.5, -below), -spine, 8)
    return Lungs(region, intersection(hollow, -room(m), 6), cage, midline(p))


def tissue(lungs: Lungs, p: Patient, rng: np.random.Generator) -> Array:
    """HU of the healthy lung: denser at the back, where it hangs, and when breathed out; fissures."""
    r = lungs.region
    hu = np.float32(-800 - 75 * p.inflation) + np.float32(45 - 25 * p.inflation) * (r.y / np.float32(p.depth))
    hu += 11 * r.noise(rng, 30) + 9 * r.noise(rng, 7)
    oblique = (
        r.z - np.float32(-35 * p.length) - np.float32(1.1 * p.length * 88 / p.depth) * r.y
    ) / np.float32(1.5)
    oblique += 2.5 * r.noise(rng, 60)
    across = np.where(
        (r.x < lungs.middle) & (oblique > 0), r.z - np.float32(-28 * p.length) + np.float32(0.1) * r.y, 99
    )
    fissure = np.minimum(np.abs(oblique), np.abs(across))
    hu += np.clip(1 - fissure / np.float32(r.grid.edge_mm), 0, 1) * np.float32(220 / r.grid.edge_mm)
    return hu


def draw_vessels(lungs: Lungs, hu: Array, p: Patient, rng: np.random.Generator) -> None:
    """Arteries and veins by volume, then bronchi with their walls, into the whole scan's HU."""
    grid = lungs.region.grid
    _, lung_arteries, arteries = p.blood
    inside = lungs.coverage
    trees: dict[str, list[Tubes]] = {"artery": [], "vein": [], "airway": []}
    kinds = (
        ("artery", ARTERY_TIPS, 3.0, TIP_RADIUS_MM, 4.0),
        ("vein", VEIN_TIPS, 3.0, TIP_RADIUS_MM, -14.0),
        ("airway", AIRWAY_TIPS, 14.0, 0.8, 0.0),
    )
    for side in (-1, 1):
        root = hilum(p, side)
        box, local = lungs.region.within(root - 30, root + 30)
        reach = np.clip(-ellipsoid(box, root, (28, 28, 28)) / 6, 0, 1)
        inside[local] = np.maximum(inside[local], reach)
        for kind, tips, deep, radius, up in kinds:
            spots = lungs.spots(rng, tips, deep, side)
            if len(spots):
                trees[kind].append(grow_tree(root + np.array([0, 0, up]), spots, radius, rng))
    view = hu[lungs.region.slices]
    for kind, value in (("artery", lung_arteries), ("vein", 0.4 * lung_arteries + 0.6 * arteries)):
        if trees[kind]:
            blend(view, value, deposit(grid, join(trees[kind])).over(lungs.region) * inside)
    if trees["airway"]:
        lumen = join(trees["airway"])
        blend(view, 20.0, deposit(grid, lumen.scaled(1.15, -0.4)).over(lungs.region) * inside)
        blend(view, -960.0, deposit(grid, lumen).over(lungs.region) * inside)
