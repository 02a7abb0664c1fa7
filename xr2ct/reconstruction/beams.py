"""The X-ray machine as a reconstruction meets it: from a volume on the unit window to line integrals."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from xr2ct.evaluation.reprojection import project_unit
from xr2ct.projection.geometry import Geometry
from xr2ct.reconstruction.pose import Pose, move
from xr2ct.window import HuWindow


@dataclass(frozen=True)
class Beams:
    """Where the views of one patient were taken from, and what 0 and 1 of the volume are."""

    geometry: Geometry
    angles_deg: tuple[float, ...]
    cube_mm: float
    """Side of the volume."""
    window: HuWindow
    poses: tuple[Pose, ...] | None = None
    """How the patient lay in each view; as the geometry says in all of them where None."""

    def project(self, unit: Tensor) -> Tensor:
        """Line integrals (view, row, col) of a volume (z, y, x) on the unit window, clipped to it.

        With poses, those of the patient moved for each view. Differentiable with respect to the volume;
        float32 or float64, on the volume's device.
        """
        if self.poses is None:
            return self._project(unit[None], self.angles_deg)[0]
        unit = unit.clamp(0, 1)
        views = [
            self._project((unit if pose.still else self._moved(unit, pose))[None], (angle,))[0]
            for angle, pose in zip(self.angles_deg, self.poses, strict=True)
        ]
        return torch.cat(views)

    def _moved(self, unit: Tensor, pose: Pose) -> Tensor:
        return move(unit, unit.new_tensor(pose.motion), self.cube_mm)

    def _project(self, units: Tensor, angles_deg: tuple[float, ...]) -> Tensor:
        return project_unit(units, self.window, self.cube_mm, self.geometry, angles_deg)


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

    def to(self, device: torch.device | str) -> XRays:
        """The same on a device."""
        seen = None if self.seen is None else self.seen.to(device)
        return XRays(self.line_integrals.to(device), seen, self.calibrated)
