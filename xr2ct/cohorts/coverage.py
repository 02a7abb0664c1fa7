"""How much of the lungs a scan holds between its two ends."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from xr2ct.cohorts.lungs import coarse, find_body_and_lungs, whole_blocks
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import Source
from xr2ct.cohorts.volume import NativeVolume

SAMPLED_SLICES = 32
"""Of a DICOM series, both ends among them: about 12 mm apart in a chest, 25 mm from neck to thighs."""


@dataclass(frozen=True)
class Ends:
    """The lungs' cross-sections on a scan's two ends, as parts of their largest."""

    feet: float
    head: float

    @property
    def coverage(self) -> float:
        """1 where the lungs end inside the scan, 0 where it ends at their widest."""
        return 1.0 - max(self.feet, self.head)

    def cut(self) -> str:
        """The worse end in words."""
        end = "feet" if self.feet >= self.head else "head"
        part = max(self.feet, self.head)
        return f"{part:.0%} of their largest cross-section on its last slice towards the {end}"


def lung_coverage(source: Source) -> float | None:
    """Lung coverage of a scan that has not been read: of a DICOM series from `SAMPLED_SLICES` slices.

    1 − (larger of the lungs' cross-sections on the first and the last slice) / (largest cross-section).
    None where there are no lungs or the scan cannot be read.
    """
    try:
        return lung_coverage_of(_sampled(source))
    except Refused:
        return None


def lung_coverage_of(native: NativeVolume) -> float | None:
    """The same of a whole scan; None where it holds no lungs."""
    blocks, block_mm = coarse(native.hu, native.spacing_mm)
    _, lungs = find_body_and_lungs(blocks, block_mm)
    return lung_ends(lungs, native).coverage if lungs.any() else None


def lung_ends(lungs: np.ndarray, native: NativeVolume) -> Ends:
    """What the ends of a scan cut, from the mask of lungs on the grid of `coarse`."""
    # The last block may be part air for want of slices, and so no body.
    sections = lungs[: whole_blocks(native.hu.shape[0], native.spacing_mm[0])].sum(axis=(1, 2))
    return Ends(float(sections[0] / sections.max()), float(sections[-1] / sections.max()))


def _sampled(source: Source) -> NativeVolume:
    if source.kind == "dicom":
        from xr2ct.cohorts.dicom import read_sampled  # here: a volume file is read without pydicom

        return read_sampled(source.files, SAMPLED_SLICES)
    from xr2ct.cohorts.reader import read_volume

    return read_volume(source)
