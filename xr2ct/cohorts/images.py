"""NIfTI, MHA and NRRD: one file, one volume in HU."""

from __future__ import annotations

import gzip
import math
import zlib
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
        if kind == "nifti":
            _check_whole(path)
        image = sitk.ReadImage(str(path), imageIO=_READERS[kind])
    except (RuntimeError, OSError, EOFError, zlib.error) as error:
        raise Refused(f"cannot be read as {kind}", where=path.name) from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[..., 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = "×".join(map(str, image.GetSize()))
        raise Refused(f"expected one 3D volume of single values, found {shape}", where=path.name)
    array = sitk.GetArrayFromImage(image)
    check_hu(array, path.name)
    directions = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    turned, spacing = to_patient_axes(array, directions, image.GetSpacing()[::-1])
    attributes = {"format": kind, "slices": turned.shape[0], "spacing_mm": list(spacing)}
    return NativeVolume(clip_hu(turned), spacing, attributes)


def _check_whole(path: Path) -> None:
    """Raise `EOFError` where voxels are missing: ITK's NIfTI reader fills them and goes on."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(_READERS["nifti"])
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    bits = math.prod(reader.GetSize()) * int(reader.GetMetaData("bitpix"))
    expected = float(reader.GetMetaData("vox_offset")) + bits / 8
    length = 0
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        while part := file.read(1 << 22):
            length += len(part)
    if length < expected:
        raise EOFError(f"{length} of {expected:.0f} bytes")


def check_hu(array: np.ndarray, name: str) -> None:
    """Raise `Refused` for values that cannot be HU: not finite, label maps, unit intervals, raw counts."""
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise Refused("holds values that are not finite", where=name)
    unit = np.issubdtype(array.dtype, np.floating) and low >= -1 and 0 < high - low <= 2
    unsigned = np.issubdtype(array.dtype, np.unsignedinteger)
    if unit or unsigned or (low >= 0 and high > 2000):
        raise Refused(f"values from {low:g} to {high:g} are not HU (air would be near −1000)", where=name)
