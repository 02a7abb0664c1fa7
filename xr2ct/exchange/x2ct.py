"""The HDF5 layout that X2CT-GAN and its successors read: FOLDER/ct_xray_data.h5, a file a patient.

    ct      (size, size, size) int16: HU + 1024, clipped at 0, so air is 24 and water 1024;
            z feet to head, y front to back, x right to left of the patient
    xray1   (pixels, pixels) float32: the frontal view's line integrals over their maximum, × 255;
            bone bright, row 0 at the head
    xray2   the lateral view, the same

The file's attributes say so again, with the cube's side, the geometry, the views' angles and the line
integrals that 255 stands for. A file without them is taken for one of the published ones: 320 mm a side.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.volume import NativeVolume, clip_hu
from xr2ct.projection.geometry import Geometry

FILE = "ct_xray_data.h5"
OFFSET = 1024
"""Of `ct` against HU."""
WHITE = 255.0
"""Of an X-ray's largest line integral."""
CUBE_MM = 320.0
"""Side of a cube that says nothing of it."""

FRONTAL = (0.0, 180.0)
LATERAL = (90.0, 270.0)
"""Angles in degrees, the first that there is."""

_LARGEST = 1024
"""Voxels a side: 2 GB of int16. A file of a kilobyte may claim to hold more."""

_TISSUE = 500
"""A chest has values above this; pictures of 0 to 1 or 0 to 255 have none."""


def write_x2ct(
    path: Path,
    hu: np.ndarray,
    cube_mm: float,
    views: np.ndarray,
    angles_deg: tuple[float, float],
    geometry: Geometry,
) -> None:
    """Write one patient: `hu` (z, y, x) int16, `views` (2, row, col) line integrals, frontal and lateral.

    HU from −1024 to 31743, all that a scanner gives, come back from `read_x2ct` as they were.
    """
    stored = np.clip(hu.astype(np.int32) + OFFSET, 0, np.iinfo(np.int16).max)
    peaks = [float(view.max()) or 1.0 for view in views]
    with h5py.File(path, "w") as file:
        file["ct"] = stored.astype(np.int16)
        for name, view, peak in zip(("xray1", "xray2"), views, peaks, strict=True):
            file[name] = (view / np.float32(peak) * np.float32(WHITE)).astype(np.float32)
        file.attrs.update(
            {
                "ct_values": f"HU + {OFFSET}, clipped at 0",
                "ct_axes": "z feet to head, y front to back, x right to left of the patient",
                "ct_offset": OFFSET,
                "cube_mm": cube_mm,
                "spacing_mm": cube_mm / len(hu),
                "xray_values": f"line integral / its maximum x {WHITE:g}; row 0 at the head",
                "xray_max": peaks,
                "angles_deg": angles_deg,
                **{key: value for key, value in geometry.as_attributes().items() if key != "name"},
                "geometry": geometry.name,
            }
        )


def read_x2ct(path: Path) -> NativeVolume:
    """The `ct` of a file as a scan that is a cube already, so that ingest neither centres nor smooths it.

    Raises `Refused` for a file that is no HDF5, has no cube named `ct`, or whose values cannot be HU + 1024.
    Its X-rays are not read: they are projected anew, in line integrals.
    """
    try:
        with h5py.File(path, "r") as file:
            cube_mm = _checked_cube(file)
            values = file["ct"][...]
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise Refused("cannot be read as HDF5 in X2CT's layout", where=path.name) from error
    _check_values(values, path.name)
    spacing = cube_mm / len(values)
    middle = (cube_mm - spacing) / 2
    attributes = {"format": "x2ct", "slices": len(values), "spacing_mm": [spacing] * 3}
    hu = clip_hu(values.astype(np.int32 if values.dtype.kind in "iu" else np.float32) - OFFSET)
    return NativeVolume(hu, (spacing,) * 3, attributes, centre_mm=(middle,) * 3)


def x2ct_spacing(path: Path) -> tuple[int, float]:
    """Voxels a side and their spacing in mm, without reading any; `ValueError` where it is no such file."""
    try:
        with h5py.File(path, "r") as file:
            cube_mm = _checked_cube(file)
            size = int(file["ct"].shape[0])
    except (OSError, RuntimeError, KeyError, Refused) as error:
        raise ValueError("cannot be read as HDF5 in X2CT's layout") from error
    return size, cube_mm / size


def _checked_cube(file: h5py.File) -> float:
    """The cube's side in mm; `Refused` where there is no cube."""
    where = Path(file.filename).name
    ct: Any = file.get("ct")
    if not isinstance(ct, h5py.Dataset):
        raise Refused(f"no dataset 'ct' (it holds {', '.join(sorted(file)[:5]) or 'nothing'})", where=where)
    cube = ct.ndim == 3 and len(set(ct.shape)) == 1 and ct.dtype.kind in "iuf"
    if not cube or not 1 < ct.shape[0] <= _LARGEST:
        shape = "×".join(map(str, ct.shape)) or "a single value"
        raise Refused(
            f"'ct' is {shape} of {ct.dtype}; expected a cube of numbers, at most {_LARGEST} a side",
            where=where,
        )
    cube_mm = float(file.attrs.get("cube_mm", CUBE_MM))
    if not 16 <= cube_mm <= 2000:
        raise Refused(f"cube_mm is {cube_mm:g}; expected the cube's side in millimetres", where=where)
    return cube_mm


def _check_values(values: np.ndarray, where: str) -> None:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise Refused("'ct' holds values that are not finite", where=where)
    if low < 0 or not _TISSUE < high <= np.iinfo(np.int16).max + OFFSET:
        raise Refused(
            f"'ct' has values from {low:g} to {high:g}, expected HU + {OFFSET} (water is {OFFSET})",
            where=where,
        )
