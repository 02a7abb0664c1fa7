"""One case from its files into its row: read, resample, project, write. Runs in a worker process."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.lungs import body_mask, coarse
from xr2ct.cohorts.reader import read_volume
from xr2ct.cohorts.refused import Refused
from xr2ct.ingest.pictures import write_pictures
from xr2ct.ingest.task import Outcome, Task
from xr2ct.projection.projector import attenuation, outside_beam, project
from xr2ct.store import layout, write
from xr2ct.store.layout import XraySet


def work(task: Task) -> Outcome:
    """Write what is missing of a case and then its file; the reason, where it must be refused."""
    began = time.monotonic()
    _forget_peak()
    outcome = _work(task)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return replace(outcome, seconds=time.monotonic() - began, peak_bytes=peak)


def _work(task: Task) -> Outcome:
    attributes = write.read_case(task.store, task.row.case)
    changed: tuple[str, ...] = ()
    try:
        if task.sizes or task.xrays:
            before, attributes = attributes, _scan(task, attributes)
            changed = _changed(task, attributes["checksums"])
            if changed:  # old arrays of one scan must not stand beside new ones of another
                attributes = _scan(_rest(task, before), attributes)
    except Refused as refused:
        return Outcome(refused.reason, refused.where, refused.passing)
    count, refusals = write_pictures(task, attributes)
    pictures = layout.picture_checksums(attributes)
    write.write_case(task.store, task.row.case, attributes)
    changed = (*changed, *_changed(task, pictures))
    return Outcome(radiographs=refusals, pictures=count, changed=changed)


def _changed(task: Task, written: Mapping[str, str]) -> tuple[str, ...]:
    """Arrays whose chunk is not what it was before it was lost."""
    return tuple(a for a, expected in task.expected.items() if written.get(a, expected) != expected)


def _rest(task: Task, known: Mapping[str, Any]) -> Task:
    """The arrays that a case had and the task was not to write."""
    sizes, xrays = [], []
    for array in known["checksums"]:
        kind, name = array.split("/")
        if kind == "ct" and int(name) not in task.sizes:
            sizes.append(int(name))
        elif kind == "xray" and name not in {x.geometry.name for x in task.xrays}:
            xrays.append(layout.xray_set(task.store, name))
    return replace(task, sizes=tuple(sizes), xrays=tuple(xrays))


def _scan(task: Task, known: dict[str, Any]) -> dict[str, Any]:
    """The arrays that are missing, on disk, and what cases/ID.json is to say; raises `Refused`."""
    assert task.source is not None
    fine = round(task.cube_mm)  # voxels of about 1 mm, which X-rays are projected from whatever the sizes
    sizes = {*task.sizes, fine} if task.xrays else {*task.sizes}
    native = read_volume(task.source)
    about = dict(native.attributes)
    canonical = canonical_cubes(
        native,
        sorted(sizes),
        task.cube_mm,
        min_lung_coverage=task.min_lung_coverage,
        remove_table=task.remove_table,
    )
    del native  # hundreds of megabytes, while X-rays are projected
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
        **about,
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
    instead_of = [[one.series, one.reason] for one in task.instead_of] or known.get("instead_of")
    if instead_of:
        attributes["instead_of"] = instead_of
    if "radiographs" in known:
        attributes["radiographs"] = known["radiographs"]
    return attributes


def _views(cube: np.ndarray, cube_mm: float, xray: XraySet) -> tuple[np.ndarray, dict[str, float]]:
    """Line integrals (view, row, col) of a cube in HU, and by angle how much of its body they do not see."""
    step = cube_mm / len(cube)
    spacing = (step, step, step)
    mu = torch.empty(cube.shape)
    for place, one in zip(mu, torch.from_numpy(cube), strict=True):  # one volume of floats, not four
        place[:] = attenuation(one)
    views = project(mu[None], spacing, xray.geometry, xray.angles)
    del mu
    blocks, block_mm = coarse(cube, spacing)
    z, y, x = ((cube_mm - block) / 2 for block in block_mm)  # the isocentre, from the first block's centre
    body = torch.from_numpy(body_mask(blocks, block_mm))
    outside = outside_beam(body, block_mm, xray.geometry, xray.angles, (z, y, x))
    return views[0].numpy(), {f"{a:g}": f for a, f in zip(xray.angles, outside, strict=True)}


def _forget_peak() -> None:
    """Let the kernel count this process's peak memory anew, where it can: a worker takes many cases."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
