"""The X-ray machine as a reconstruction meets it: from a volume on the unit window to line integrals."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from xr2ct.evaluation.reprojection import project_unit
from xr2ct.projection.geometry import Geometry
from xr2ct.window import HuWindow


@dataclass(frozen=True)
class Beams:
    """Where the views of one patient were taken from, and what 0 and 1 of the volume are."""

    geometry: Geometry
    angles_deg: tuple[float, ...]
    cube_mm: float
    """Side of the volume."""
    window: HuWindow

    def project(self, unit: Tensor) -> Tensor:
        """Line integrals (view, row, col) of a volume (z, y, x) on the unit window, clipped to it.

        Differentiable with respect to the volume; float32 or float64, on the volume's device.
        """
        return project_unit(unit[None], self.window, self.cube_mm, self.geometry, self.angles_deg)[0]


@dataclass(frozen=True)
class XRays:
    """What the machine measured of one patient."""

    line_integrals: Tensor
    """(view, row, col) float32."""
    seen: Tensor | None = None
    """(view, row, col) bool: pixels that hold a measurement, not a collimator's blade; all where None."""
    calibrated: bool = True
    """Whether the figures are line integrals as they stand; where not, a radiograph's are known up to a gain
    and an offset of each view."""
