"""A whole patient on a grid: every tissue put into its voxels, before any scanner has looked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from xr2ct.cohorts.phantom import abdomen, disease, lungs, mediastinum, skeleton, torso
from xr2ct.cohorts.phantom.grid import Array, Grid, Region, blend
from xr2ct.cohorts.phantom.patient import Patient
from xr2ct.cohorts.phantom.tubes import Deposit
from xr2ct.seeds import generator

AIR = -1000.0


def draw_chest(grid: Grid, p: Patient, seed: int) -> tuple[Array, Array]:
    """(z, y, x) float32 HU without noise, and the fraction of each voxel that is body."""
    profiles = torso.Profiles.of(p)
    hu, body = np.empty(grid.shape, np.float32), np.empty(grid.shape, np.float32)
    inner = grid.region((-p.width - 8, -p.depth - 8, -450), (p.width + 8, p.depth + 8, 300))
    air, cage = np.empty(inner.shape, np.float32), np.empty(inner.shape, np.float32)
    vessels = mediastinum.Vessels.of(inner, p, profiles, generator(seed, "gullet"))
    portal = abdomen.liver_vessels(grid, p, generator(seed, "portal"))
    for slab in grid.slabs():
        wall, here = hu[slab.slices], body[slab.slices]
        outline = torso.body_distance(slab, p, profiles, generator(seed, "body"))
        ribs = torso.cage_distance(slab, profiles)
        here[:] = slab.coverage(outline)
        wall[:] = torso.wall(slab, outline, ribs, p, generator(seed, "wall"))
        trunk, local = slab.cut(inner.slices)
        _, place = inner.cut(trunk.slices)
        tubes = vessels.part(place)
        lungs_here = _fill_trunk(trunk, wall[local], ribs[local], p, profiles, tubes, portal, seed)
        air[place], cage[place] = lungs_here.distance, lungs_here.from_ribs
        skeleton.draw_spine(slab, wall, p, profiles, generator(seed, "spine"))
    both = lungs.Lungs(inner, air, cage, lungs.midline(p))
    if "consolidation" in p.findings:
        disease.consolidate(both, hu, generator(seed, "consolidation"))
    lungs.draw_vessels(both, hu, p, generator(seed, "vessels"))
    disease.add_lumps(both, hu, p, generator(seed, "lumps"))
    skeleton.draw_bones(grid, hu, p, profiles, generator(seed, "bones"))
    disease.add_devices(grid, hu, p, generator(seed, "devices"))
    blend(hu, AIR, 1 - body)
    return hu, body


def _fill_trunk(
    region: Region,
    hu: Array,
    cage: Array,
    p: Patient,
    profiles: torso.Profiles,
    vessels: mediastinum.Vessels,
    portal: Deposit,
    seed: int,
) -> lungs.Lungs:
    """Everything within the ribs, in place in the region's HU; returns the lungs as far as they hold air."""
    blend(hu, mediastinum.FAT, region.coverage(cage + 3))
    below = abdomen.diaphragm_distance(region, p, generator(seed, "diaphragm"))
    abdomen.draw_abdomen(region, hu, below, cage, portal, p, generator(seed, "abdomen"))
    middle = mediastinum.build(region, p, profiles, vessels, generator(seed, "mediastinum"))
    mediastinum.draw(region, hu, middle, p, generator(seed, "heart"))
    spine = skeleton.spine_hollow(region, profiles)
    found = lungs.find_lungs(region, cage, below, spine, middle, p)
    tissue = lungs.tissue(found, p, generator(seed, "lungs"))
    disease.change_tissue(found, tissue, p, generator(seed, "infiltrates"))
    blend(hu, tissue, found.coverage)
    fluid = disease.effusion(found, p, generator(seed, "effusion"))
    if fluid is None:
        return found
    pressed = np.clip(1 - fluid / 8, 0, 1) * found.coverage
    blend(hu, -80.0, pressed)
    blend(hu, 9.0, region.coverage(fluid))
    return replace(found, distance=np.maximum(found.distance, -fluid))
