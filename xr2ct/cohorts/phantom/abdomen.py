"""Under the diaphragm: its domes, the liver on the right, stomach and spleen on the left, gut, kidneys."""

from __future__ import annotations

import numpy as np

from xr2ct.cohorts.phantom.grid import Array, Grid, Region, blend
from xr2ct.cohorts.phantom.patient import Patient
from xr2ct.cohorts.phantom.shapes import ellipsoid, intersection, union
from xr2ct.cohorts.phantom.tubes import Deposit, deposit, grow_tree

DOME_RISE_MM = 116.0


def diaphragm_distance(region: Region, p: Patient, rng: np.random.Generator) -> Array:
    """Negative below the diaphragm. Two domes, the right one higher, with a recess behind and beside each."""
    x, y, z = region.x, region.y, region.z
    rise = np.float32(DOME_RISE_MM * p.length)
    sides = []
    for side, top in zip((-1, 1), p.dome, strict=True):
        u = np.float32(side) * x - np.float32(0.47 * p.width)
        v = y + np.float32(0.10 * p.depth)
        u /= np.where(u > 0, np.float32(0.575 * p.width), np.float32(0.78 * p.width))
        v /= np.where(v > 0, np.float32(1.11 * p.depth), np.float32(1.02 * p.depth))
        rho2 = np.minimum(u * u + v * v, np.float32(0.99))
        drop = rise * (1 - np.sqrt(1 - rho2))
        # over the slope's length: an upright wall is as near as the way across to it
        steep = np.sqrt(rho2 / (1 - rho2)) * rise / np.float32(0.8 * p.depth)
        sides.append((z - (np.float32(top) - drop)) / np.sqrt(1 + steep * steep))
    return union(sides[0], sides[1], 12) + np.float32(0.9) * region.noise(rng, 50)


def liver_vessels(grid: Grid, p: Patient, rng: np.random.Generator) -> Deposit:
    """The portal tree; what of it lies outside the liver is not drawn."""
    portal = np.array([-22.0, 0.1 * p.depth, p.dome[0] - 85])
    tips = rng.uniform((-0.85 * p.width, -0.6 * p.depth, -105), (10, 0.6 * p.depth, -15), (90, 3))
    tips[:, 2] += p.dome[0]
    return deposit(grid, grow_tree(portal, tips, 0.9, rng))


def draw_abdomen(
    region: Region,
    hu: Array,
    below: Array,
    cage: Array,
    portal: Deposit,
    p: Patient,
    rng: np.random.Generator,
) -> None:
    """Organs into the region's HU. `below` and `cage` are distances to diaphragm and ribs over the region."""
    inside = np.maximum(below + 3, cage + 5)
    blend(hu, -98.0, region.coverage(np.maximum(below, cage + 3)))
    blend(hu, 45.0, region.coverage(np.maximum(np.abs(below + 1.5) - 1.8, cage + 2)))  # the muscle itself
    _gut(region, hu, inside, p, rng)
    veins, _, arteries = p.blood
    enhanced = max(0.0, 0.4 * (0.6 * veins + 0.4 * arteries - 45))
    _solid(region, hu, inside, p, 0.55 * enhanced)
    liver = _liver(region, inside, p, rng)
    fatty = float(rng.normal(56, 7)) - 0.6 * max(p.fat - 20, 0)
    blend(hu, fatty + 0.5 * enhanced, region.coverage(liver))
    blend(hu, 38 + 0.9 * enhanced, portal.over(region) * region.coverage(liver + 5))
    _stomach(region, hu, inside, p, rng)


def _liver(region: Region, inside: Array, p: Patient, rng: np.random.Generator) -> Array:
    forward = np.clip(-region.y / np.float32(p.depth), -0.4, 1)
    edge = region.x - (12 + 48 * forward) - np.float32(6) * region.noise(rng, 80)
    # its lower face rises from right to left and from front to back
    floor = (p.dome[0] - 150 * p.length) + 0.55 * (region.x + 60) + 12 * forward - region.z
    return intersection(intersection(inside, edge, 14), np.float32(0.85) * floor, 14)


def _solid(region: Region, hu: Array, inside: Array, p: Patient, enhanced: float) -> None:
    """Spleen and kidneys."""
    w, d, top = p.width, p.depth, p.dome[1]
    organs = [
        ((0.70 * w, 0.42 * d, top - 62), (0.24 * w, 0.40 * d, 50), 48.0),
        ((-0.46 * w, 0.50 * d, top - 120), (30, 26, 55), 32.0),
        ((0.44 * w, 0.52 * d, top - 112), (30, 26, 55), 32.0),
    ]
    for centre, radii, value in organs:
        box, local = region.within(np.subtract(centre, radii) - 8, np.add(centre, radii) + 8)
        shape = intersection(ellipsoid(box, centre, radii), inside[local], 6)
        blend(hu[local], value + enhanced, box.coverage(shape))


def _stomach(region: Region, hu: Array, inside: Array, p: Patient, rng: np.random.Generator) -> None:
    """A bubble of gas in front of fluid: the patient lies on the back."""
    w, d = p.width, p.depth
    size = float(rng.uniform(0.75, 1.2))
    centre = np.array([0.40 * w, -0.16 * d, p.dome[1] - 40 - 6 * size])
    radii = np.array([0.34 * w, 0.46 * d, 40]) * size
    box, local = region.within(centre - radii - 8, centre + radii + 8)
    outer = intersection(ellipsoid(box, centre, radii), inside[local] + 2, 8)
    view = hu[local]
    blend(view, 42.0, box.coverage(outer))
    lumen = outer + 4
    blend(view, 18 + 14 * box.noise(rng, 12), box.coverage(lumen))
    level = np.float32(centre[1] - radii[1] * rng.uniform(0.0, 0.75))
    blend(view, -990.0, box.coverage(np.maximum(lumen, box.y - level)))


def _gut(region: Region, hu: Array, inside: Array, p: Patient, rng: np.random.Generator) -> None:
    """Loops of bowel in the fat, and gas in the bend of the colon beside the spleen."""
    w, d = p.width, p.depth
    loops = region.noise(rng, 34) - np.float32(0.35)
    deep = np.maximum(inside + 10, region.z - np.float32(p.dome[1] - 62))
    blend(hu, 30.0, np.clip(loops * 4, 0, 1) * region.coverage(deep))
    if rng.random() < 0.6:
        centre = np.array([0.72 * w, -0.42 * d, p.dome[1] - rng.uniform(45, 75)])
        for k in range(4):
            at = centre + np.array([-5.0 * k, -3.0 * k, -22.0 * k]) + rng.normal(0, 4, 3)
            box, local = region.within(at - 32, at + 32)
            ball = np.maximum(ellipsoid(box, at, rng.uniform(15, 22, 3)), inside[local] + 4)
            blend(hu[local], 35.0, box.coverage(ball - 2.5))
            blend(hu[local], -950.0 if k < 3 else -300.0, box.coverage(ball))
