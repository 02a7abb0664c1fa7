"""NIfTI, MHA and NRRD: one file, one volume in HU."""

from __future__ import annotations

import gzip
import math
import re
import zlib
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from xr2ct.cohorts.itk import itk_name
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.volume import SPACING_MM, NativeVolume, clip_hu, to_patient_axes

MOST_BYTES = 1_500_000_000
"""Of a volume as its file holds it and as `NativeVolume` does, both of which are there for a while."""

READERS = {"nifti": "NiftiImageIO", "mha": "MetaImageIO", "nrrd": "NrrdImageIO"}


def read_image(path: Path, kind: str) -> NativeVolume:
    """A volume file as a scan in patient axes; `Refused` where it is damaged, not 3D, oblique or not HU.

    SimpleITK turns each format's own axes (NIfTI is RAS) into LPS.
    """
    try:
        with itk_name(path) as name:
            _check_size(name, kind, path)
            image = sitk.ReadImage(name, imageIO=READERS[kind])
    except (RuntimeError, OSError, EOFError, zlib.error, MemoryError) as error:
        raise Refused(f"cannot be read as {kind}", where=path.name) from error
    if image.GetDimension() == 4 and image.GetSize()[3] == 1:
        image = image[..., 0]
    if image.GetDimension() != 3 or image.GetNumberOfComponentsPerPixel() != 1:
        shape = "×".join(map(str, image.GetSize()))
        raise Refused(f"expected one 3D volume of single values, found {shape}", where=path.name)
    array = sitk.GetArrayViewFromImage(image)
    check_hu(array, path.name)
    directions = np.array(image.GetDirection()).reshape(3, 3).T[::-1]
    turned, spacing = to_patient_axes(array, directions, image.GetSpacing()[::-1])
    if not SPACING_MM[0] <= min(spacing) <= max(spacing) <= SPACING_MM[1]:
        raise Refused(f"voxels of {'×'.join(f'{step:g}' for step in spacing)} mm", where=path.name)
    attributes = {"format": kind, "slices": turned.shape[0], "spacing_mm": list(spacing)}
    return NativeVolume(clip_hu(turned), spacing, attributes)


def _check_size(name: str, kind: str, path: Path) -> None:
    """Raise `Refused` for a volume too large, before memory is asked for it, and `EOFError` where a NIfTI
    lacks voxels: ITK's reader fills them and goes on."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[kind])
    reader.SetFileName(name)
    reader.ReadImageInformation()
    shape, voxel = reader.GetSize(), sitk.GetPixelIDValueAsString(reader.GetPixelID())
    bits = int(re.findall(r"\d+", voxel)[0])
    held = math.prod(shape) * reader.GetNumberOfComponents() * (bits // 8 + (4 if "float" in voxel else 2))
    if held > MOST_BYTES:
        many = "×".join(map(str, shape))
        raise Refused(
            f"too large: {many} voxels, {voxel}, need {held / 1e9:.1f} GB while they are read, at most "
            f"{MOST_BYTES / 1e9:g} GB is taken (16-bit signed integers need least)",
            where=path.name,
        )
    if kind != "nifti":
        return
    expected = float(reader.GetMetaData("vox_offset"))
    expected += math.prod(shape) * int(reader.GetMetaData("bitpix")) / 8
    length = 0
    with gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb") as file:
        while length < expected and (part := file.read(1 << 22)):
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
