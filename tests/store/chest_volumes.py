"""Small real volumes: a box of tissue with two lungs, as MHA files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from xr2ct.projection.geometry import Geometry

SMALL = Geometry("small", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=32)
CUBE_MM = 160.0
"""Smaller than the body, so that a case takes a tenth of a second."""


def chest(seed: int) -> np.ndarray:
    """(z, y, x) int16 HU at 6 mm: no two seeds alike."""
    random = np.random.default_rng(seed)
    z, y, x = np.mgrid[:44, :40, :52].astype(float)
    hu = np.full(z.shape, -1000.0)
    hu[:, 6:34, 5:47] = random.uniform(0, 60)
    for side in (16, 36):
        axes = random.uniform(0.9, 1.1, 3) * (15, 9, 7)
        hu[((z - 22) / axes[0]) ** 2 + ((y - 20) / axes[1]) ** 2 + ((x - side) / axes[2]) ** 2 < 1] = -850
    return np.rint(hu + random.normal(0, 10, hu.shape)).astype(np.int16)


def write_mha(path: Path, hu: np.ndarray) -> None:
    """A file of 6 mm voxels."""
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((6.0, 6.0, 6.0))
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))
