"""X-ray files of a CT, or of a store's cases: what `xr2ct project` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from xr2ct import __version__
from xr2ct.errors import UserError, nearest
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.projection.views import write_views
from xr2ct.provenance import of_case, sha256
from xr2ct.store.layout import xray_array


def export_views(
    source: Path,
    geometry: Geometry,
    angles_deg: Sequence[float],
    out: Path,
    *,
    case: str | None = None,
) -> list[Path]:
    """Write OUT/angle_000.mha and .png for each angle, and return the files.

    A CT (one file or a folder of DICOM) is projected whole, its centre the isocentre, never cropped. Of a
    store the views that it holds are written, OUT/CASE/angle_000.mha, of one case or of all. Raises
    `UserError` for a source that is neither, or for views that the store does not hold.
    """
    if (source / "zarr.json").is_file():
        return _export_store(source, geometry, angles_deg, out, case)
    if case is not None:
        raise UserError(f"{source}: not a store, so it has no case {case!r}")
    views = project_ct(source, geometry, angles_deg)
    header = {"xr2ct_version": __version__, "xr2ct_source_sha256": sha256(source)}
    return write_views(out, views, angles_deg, geometry, header)


def project_ct(path: Path, geometry: Geometry, angles_deg: Sequence[float]) -> np.ndarray:
    """Line integrals (view, row, col), float32, of a CT file or a folder of DICOM; `UserError` for others."""
    from xr2ct.cohorts.reader import read_volume_file

    native = read_volume_file(path)
    mu = attenuation(torch.from_numpy(native.hu))
    return project(mu[None], native.spacing_mm, geometry, angles_deg)[0].numpy()


def _export_store(
    path: Path, geometry: Geometry, angles_deg: Sequence[float], out: Path, case: str | None
) -> list[Path]:
    from xr2ct.store import Store

    store = Store.open(path)
    store.angles(geometry.name)
    held = store.geometries[geometry.name]
    if held != geometry:
        raise UserError(
            f"{path}: its views are of {held}, not of {geometry}; project the CT itself for those"
        )
    cases = [c for c in store.cases if case in (None, c.id)]
    if not cases:
        raise UserError(f"{path}: no case {case!r}: {nearest(str(case), (c.id for c in store.cases))}")
    files = []
    for c in cases:
        views = store.xray(c, geometry.name, angles_deg)
        header = of_case(store.cohort, c.id, c.attributes["checksums"][xray_array(geometry.name)])
        files += write_views(out / c.id, views, angles_deg, geometry, header)
    return files
