"""A small patient that is known by heart: water in air, a bright ball on the left, in front, below."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from xr2ct.projection.geometry import Geometry
from xr2ct.projection.views import write_views

SHAPE = (20, 24, 32)
SPACING_MM = (5.0, 4.0, 3.0)
EXTENT_MM = (100.0, 96.0, 96.0)
GEOMETRY = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=250.0, pixels=64)
BALL_MM = (-22.5, -26.0, 25.5)
"""z, y, x from the middle, on the centre of a voxel: below, in front, on the patient's left."""
BALL_HU, WATER_HU, AIR_HU, TRUE_HU = 700, 50, -1000, 150
HOSTILE = "</script><img src=x onerror=window.owned=1>"


def places() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """z, y, x in millimetres from the middle, of every voxel."""
    z, y, x = ((np.arange(n) - (n - 1) / 2) * step for n, step in zip(SHAPE, SPACING_MM, strict=True))
    return tuple(np.meshgrid(z, y, x, indexing="ij"))  # type: ignore[return-value]


def body() -> np.ndarray:
    """(z, y, x) int16 HU."""
    z, y, x = places()
    hu = np.full(SHAPE, AIR_HU, np.int16)
    hu[(np.abs(x) < 40) & (np.abs(y) < 40)] = WATER_HU
    apart = [a - b for a, b in zip((z, y, x), BALL_MM, strict=True)]
    hu[sum(d**2 for d in apart) < 11**2] = BALL_HU
    return hu


def write(path: Path, values: np.ndarray, offset_mm: float = 0.0, **header: str) -> Path:
    """A .mha or .nii.gz, its middle at the origin but for `offset_mm` along z."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(SPACING_MM[::-1])
    first = [-(n - 1) / 2 * step for n, step in zip(SHAPE[::-1], SPACING_MM[::-1], strict=True)]
    image.SetOrigin((first[0], first[1], first[2] + offset_mm))
    for key, value in header.items():
        image.SetMetaData(key, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
    return path


def doubt() -> np.ndarray:
    """(z, y, x) float32 HU: 10 at the right border, 134 at the left one."""
    return np.broadcast_to(10 + 4 * np.arange(SHAPE[2], dtype=np.float32), SHAPE).copy()


def unseen() -> np.ndarray:
    """(z, y, x) float32 HU: 100 in the front half, −100 in the back one."""
    _, y, _ = places()
    return np.where(y < 0, np.float32(100), np.float32(-100))


def xrays(folder: Path, mu_views: np.ndarray, angles: tuple[float, ...]) -> list[Path]:
    """Their .mha files."""
    return [path for path in write_views(folder, mu_views, angles, GEOMETRY) if path.suffix == ".mha"]
