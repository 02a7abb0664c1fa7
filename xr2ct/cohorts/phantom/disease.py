"""What is wrong with a patient: nodules, tumours, infiltrates, effusions, emphysema; lines and tubes."""

from __future__ import annotations

import numpy as np

from xr2ct.cohorts.phantom.grid import Array, Grid, blend
from xr2ct.cohorts.phantom.lungs import Lungs
from xr2ct.cohorts.phantom.mediastinum import nodes
from xr2ct.cohorts.phantom.patient import Patient
from xr2ct.cohorts.phantom.shapes import FAR, capsules, ellipsoid
from xr2ct.cohorts.phantom.tubes import deposit, grow_tree, path


def change_tissue(lungs: Lungs, hu: Array, p: Patient, rng: np.random.Generator) -> None:
    """Diffuse disease, into the HU of the lungs' tissue."""
    if "emphysema" in p.findings:
        _emphysema(lungs, hu, p, rng)
    if "ground-glass" in p.findings:
        _ground_glass(lungs, hu, p, rng)


def _emphysema(lungs: Lungs, hu: Array, p: Patient, rng: np.random.Generator) -> None:
    """Holes without walls, most in the upper lobes."""
    r = lungs.region
    severity = rng.uniform(-0.3, 0.9)
    upper = np.clip((r.z + 90 * p.length) / np.float32(150 * p.length), -0.3, 1)
    holes = r.noise(rng, 8) + 0.6 * r.noise(rng, 40) + upper + np.float32(severity - 1.4)
    blend(hu, -975.0, np.clip(holes * 2, 0, 1) * 0.9)


def _ground_glass(lungs: Lungs, hu: Array, p: Patient, rng: np.random.Generator) -> None:
    """Haze under the pleura of both lungs, most at the back and the bases, solid where it is worst."""
    r = lungs.region
    severity = rng.uniform(-0.8, 0.8)
    at_edge = np.exp(np.minimum(lungs.from_ribs, 0) / 20)
    field = 0.75 * r.noise(rng, 36) + 0.35 * r.noise(rng, 14) + 1.6 * at_edge
    field += 0.7 * r.y / np.float32(p.depth) - 0.4 * (r.z + 40) / np.float32(100 * p.length)
    field += np.float32(severity - 1.0)
    extent = np.clip(field * 1.8, 0, 1)
    hu += extent * (300 + 60 * r.noise(rng, 6))
    blend(hu, 15.0, np.clip((field - 1.1) * 2.5, 0, 1))


def effusion(lungs: Lungs, p: Patient, rng: np.random.Generator) -> Array | None:
    """Distance to pleural fluid, which runs to the back and the base of a patient on the back."""
    if "effusion" not in p.findings:
        return None
    r = lungs.region
    both = rng.random() < 0.5
    distance = np.full(r.shape, FAR, np.float32)
    for side in (-1, 1):
        thick, top = rng.uniform(12, 46), rng.uniform(-20, 50) * p.length
        if both or side == p.lost_side:
            height = np.clip((np.float32(top) - r.z) / np.float32(110 * p.length), 0, 1)
            dependent = np.clip(0.25 + r.y / np.float32(p.depth), 0, 1)
            layer = -lungs.from_ribs - np.float32(thick) * height * dependent
            beside = side * (np.float32(lungs.middle) - r.x)
            distance = np.minimum(distance, np.maximum(np.maximum(layer, lungs.distance - 0.5), beside))
    return distance


def consolidate(lungs: Lungs, hu: Array, rng: np.random.Generator) -> None:
    """One or two patches of airless lung with ragged edges, into the whole scan's HU."""
    for spot in lungs.spots(rng, int(rng.integers(1, 3)), 12):
        size = rng.uniform(22, 48, 3)
        box, local = lungs.region.within(spot - 85, spot + 85)
        shape = ellipsoid(box, spot, size) + 9 * box.noise(rng, 26) + 4 * box.noise(rng, 9)
        inside = box.coverage(lungs.distance[local])
        view = hu[box.slices]
        blend(view, -600.0, np.clip(1 - shape / 14, 0, 1) * inside * 0.8)
        blend(view, 32.0, np.clip(0.5 - shape / 5, 0, 1) * inside)


def add_lumps(lungs: Lungs, hu: Array, p: Patient, rng: np.random.Generator) -> None:
    """Nodules and tumours in the lungs, nodes in the mediastinum, into the whole scan's HU."""
    grid = lungs.region.grid
    if "nodule" in p.findings:
        for spot in lungs.spots(rng, int(rng.integers(1, 4)), 4):
            radius = float(3.5 + 9 * rng.beta(1.2, 2.5))
            solid = rng.random() < 0.75
            _lump(lungs, hu, spot, radius, 35.0 if solid else -480.0, 0.22, rng)
    if "calcified-nodule" in p.findings:
        for spot in lungs.spots(rng, 1, 4):
            _lump(lungs, hu, spot, float(rng.uniform(3, 5)), 420.0, 0.08, rng)
    enhanced = 0.12 * (p.blood[2] - 40)
    if "mass" in p.findings:
        for spot in lungs.spots(rng, 1, 9, p.lost_side):
            radius = float(rng.uniform(14, 38))
            _lump(lungs, hu, spot, radius, 38.0 + enhanced, 0.2, rng)
            _lump(lungs, hu, spot, radius * 0.45, 18.0, 0.3, rng)
            rays = rng.normal(size=(26, 3))
            rays *= (radius * rng.uniform(1.15, 1.7, 26) / np.linalg.norm(rays, axis=1))[:, None]
            spicules = deposit(grid, grow_tree(spot, spot + rays, 0.8, rng)).over(lungs.region)
            blend(hu[lungs.region.slices], 10.0, spicules * lungs.coverage)
    if "lymph-nodes" in p.findings:
        for centre, radii in nodes(p, rng):
            box = grid.region(centre - radii - 6, centre + radii + 6)
            blend(hu[box.slices], 42.0 + enhanced, box.coverage(ellipsoid(box, centre, radii)))


def _lump(
    lungs: Lungs,
    hu: Array,
    centre: Array,
    radius: float,
    value: float,
    lobes: float,
    rng: np.random.Generator,
) -> None:
    reach = radius * (1.3 + 3 * lobes) + 4
    box, local = lungs.region.within(centre - reach, centre + reach)
    shape = ellipsoid(box, centre, radius * rng.uniform(0.8, 1.2, 3))
    shape += np.float32(lobes * radius) * box.noise(rng, max(1.1 * radius, 4.0))
    # it grows into the mediastinum but not through the ribs
    blend(hu[box.slices], value, box.coverage(np.maximum(shape, lungs.from_ribs[local] + 1)))


def add_devices(grid: Grid, hu: Array, p: Patient, rng: np.random.Generator) -> None:
    """A central venous line, sometimes with its port; a breathing tube."""
    if "central-line" in p.findings:
        way = p.place(
            [(-40, -10, 130), (-40, -22, 92), (-31, -15, 66), (-25, -10, 42), (-28, -8, 5), (-28, -9, -25)]
        )
        deposit(grid, path(way, 1.1, 40)).into(hu, 1900.0)
        if rng.random() < 0.5:
            chest = p.place([(-62, -66, 55), (-52, -50, 88), (-40, -14, 104)])
            chest[0, 1] -= 6 + 0.3 * p.fat
            deposit(grid, path(chest, 1.1, 20)).into(hu, 1900.0)
            box = grid.region(chest[0] - 16, chest[0] + 16)
            blend(hu[box.slices], 2300.0, box.coverage(ellipsoid(box, chest[0], (11, 5, 11))))
    if "airway-tube" in p.findings:
        tube = path(p.place([(0, 2, 170), (0, 2, 125), (0, 3, 95), (1, 9, 52), (1, 12, 36)]), 5.0, 20)
        box = grid.region((-25, -25, 20), (25, 45, 200))
        shape = capsules(box, tube)
        blend(hu[box.slices], 230.0, box.coverage(shape))
        blend(hu[box.slices], -1000.0, box.coverage(shape + 1.5))
