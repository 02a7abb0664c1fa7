"""One case from its files into its row: read, resample, project, write. Runs in a worker process."""

from __future__ import annotations

import numpy as np
import torch

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.lungs import body_mask, coarse
from xr2ct.cohorts.reader import read_volume
from xr2ct.cohorts.refused import Refused
from xr2ct.ingest.prepare import Task
from xr2ct.projection.projector import attenuation, outside_beam, project
from xr2ct.store import layout, write
from xr2ct.store.layout import XraySet


def work(task: Task) -> str | None:
    """Write what is missing of a case and then its file; the reason, where it must be refused."""
    fine = round(task.cube_mm)  # voxels of about 1 mm, which X-rays are projected from whatever the sizes
    sizes = {*task.sizes, fine} if task.xrays else {*task.sizes}
    try:
        native = read_volume(task.source)
        canonical = canonical_cubes(native, sorted(sizes), task.cube_mm)
    except Refused as refused:
        return str(refused)
    known = write.read_case(task.store, task.row.case)
    checksums = dict(known.get("checksums", {}))
    outside = dict(known.get("outside_beam", {}))
    for size in task.sizes:
        array = layout.ct_array(size)
        checksums[array] = write.write_chunk(task.store, array, task.index, canonical.cubes[size])
    for xray in task.xrays:
        views, outside[xray.geometry.name] = _views(canonical.cubes[fine], task.cube_mm, xray)
        array = layout.xray_array(xray.geometry.name)
        checksums[array] = write.write_chunk(task.store, array, task.index, views)
    attributes = {
        **native.attributes,
        "case": task.row.case,
        "row": task.index,
        "patient": task.row.patient,
        "study": task.row.study,
        "series": task.row.series,
        "split": task.row.split,
        "cube_centre_mm": canonical.centre_mm,
        "body_outside_cube": canonical.body_outside_cube,
        "outside_beam": outside,
        "checksums": checksums,
    }
    write.write_case(task.store, task.row.case, attributes)
    return None


def _views(cube: np.ndarray, cube_mm: float, xray: XraySet) -> tuple[np.ndarray, dict[str, float]]:
    """Line integrals (view, row, col) of a cube in HU, and by angle how much of its body they do not see."""
    step = cube_mm / len(cube)
    spacing = (step, step, step)
    views = project(attenuation(torch.from_numpy(cube))[None], spacing, xray.geometry, xray.angles)
    blocks, block_mm = coarse(cube, spacing)
    z, y, x = ((cube_mm - block) / 2 for block in block_mm)  # the isocentre, from the first block's centre
    body = torch.from_numpy(body_mask(blocks, block_mm))
    outside = outside_beam(body, block_mm, xray.geometry, xray.angles, (z, y, x))
    return views[0].numpy(), {f"{a:g}": f for a, f in zip(xray.angles, outside, strict=True)}
