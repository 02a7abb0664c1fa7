"""What headers say of a series, before any pixel is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

T = TypeVar("T")

SAME_PLACE_MM = 0.01
"""Slices nearer than this are two at one place."""


@dataclass(frozen=True)
class Facts:
    """Of one series. Text is a known word of `cohorts.vocabulary`, "unrecognised" or ""."""

    modality: str = ""
    kernel: str = ""
    contrast: bool | None = None
    """None where the headers do not say."""
    thickness_mm: float | None = None
    spacing_mm: tuple[float, float, float] | None = None
    """Median gap of the slices' positions, row spacing, column spacing."""
    slices: int = 0
    """0 where the headers do not say."""
    date: str = ""
    """yyyymmdd, "" where unknown. It never leaves the process in clear."""
    lung_coverage: float | None = None
    """See `cohorts.coverage`; None until it was looked at."""


def usual(values: Iterable[T]) -> T | None:
    """The most frequent value, the first of them where several are; None where there are none."""
    counts = Counter(values)
    return max(counts, key=counts.__getitem__) if counts else None


def gaps_mm(positions: Sequence[Sequence[float]], orientation: Sequence[float]) -> np.ndarray:
    """Millimetres from each slice to the next along their normal, in the order of their places.

    `positions` (slice, 3) as in ImagePositionPatient, `orientation` six direction cosines.
    """
    normal = np.cross(orientation[:3], orientation[3:])
    return np.diff(np.sort(np.asarray(positions, np.float64) @ normal))


def volume_facts(path: Path, kind: str) -> Facts:
    """Of a NIfTI, MHA, NRRD or X2CT file; `ValueError` where its header cannot be read."""
    if kind == "x2ct":
        from xr2ct.exchange.x2ct import x2ct_spacing  # here: the others are read without h5py

        size, step = x2ct_spacing(path)
        return Facts(spacing_mm=(step,) * 3, slices=size)
    import SimpleITK as sitk

    from xr2ct.cohorts.images import READERS
    from xr2ct.cohorts.itk import itk_name

    reader = sitk.ImageFileReader()
    reader.SetImageIO(READERS[kind])
    try:
        with itk_name(path) as name:
            reader.SetFileName(name)
            reader.ReadImageInformation()
    except (OSError, RuntimeError) as error:
        raise ValueError(f"cannot be read as {kind}") from error
    axes = np.abs(np.array(reader.GetDirection()).reshape(reader.GetDimension(), -1)[:3, :3])
    if axes.shape != (3, 3):
        return Facts()
    # Which of the file's axes runs most along the patient's x, y and z.
    x, y, z = (int(axis) for axis in axes.argmax(axis=1))
    spacing, size = reader.GetSpacing(), reader.GetSize()
    return Facts(spacing_mm=(spacing[z], spacing[y], spacing[x]), slices=int(size[z]))
