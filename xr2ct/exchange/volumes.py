"""A cube of HU as a file that opens where the patient lay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import SimpleITK as sitk


def write_volume(hu: np.ndarray, cube_mm: float, out: Path, header: Mapping[str, str]) -> None:
    """A cube of HU (z, y, x) centred on the origin of LPS, with its spacing, origin and direction.

    `.npy` holds the array alone. `header` goes into the file where its format has room for it.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".npy":
        np.save(out, hu)
        return
    image = sitk.GetImageFromArray(hu)
    spacing = cube_mm / hu.shape[0]
    image.SetSpacing((spacing,) * 3)
    image.SetOrigin((-(cube_mm - spacing) / 2,) * 3)
    for key, value in header.items():
        image.SetMetaData(key, value)
    sitk.WriteImage(image, str(out), useCompression=True)
