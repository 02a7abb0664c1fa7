"""NIfTI, MHA and NRRD: one file, one volume in HU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk

from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.volume import NativeVolume, clip_hu, to_patient_axes

_READERS = {"nifti": "NiftiImageIO", "mha": "MetaImageIO", "nrrd": "NrrdImageIO"}


def read_image(path: Path, kind: str) -> NativeVolume:
    """A volume file as a scan in patient axes; `Refused` where it is damaged, not 3D, oblique or not HU.

    SimpleITK turns each format's own axes (NIfTI is RAS) into LPS.
    """
    try:
        image = sitk.ReadImage(str(path), imageIO=_READERS[kind])
    except RuntimeError as error:
        raise Refused(f"{path.name}: cannot be read as {kind}") from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[..., 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = "×".join(map(str, image.GetSize()))
        raise Refused(f"{path.name}: expected one 3D volume of single values, found {shape}")
    array = sitk.GetArrayFromImage(image)
    check_hu(array, path.name)
    directions = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    turned, spacing = to_patient_axes(array, directions, image.GetSpacing()[::-1])
    attributes = {"format": kind, "slices": turned.shape[0], "spacing_mm": list(spacing)}
    return NativeVolume(clip_hu(turned), spacing, attributes)


def check_hu(array: np.ndarray, name: str) -> None:
    """Raise `Refused` for values that cannot be HU: not finite, label maps, unit intervals, raw counts."""
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise Refused(f"{name}: holds values that are not finite")
    unit = np.issubdtype(array.dtype, np.floating) and low >= -1 and 0 < high - low <= 2
    unsigned = np.issubdtype(array.dtype, np.unsignedinteger)
    if unit or unsigned or (low >= 0 and high > 2000):
        raise Refused(f"{name}: values from {low:g} to {high:g} are not HU (air would be near −1000)")
