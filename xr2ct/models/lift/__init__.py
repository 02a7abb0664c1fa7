"""How a view becomes a volume: one setting, `lift.kind`, and one module for each of its choices."""

from __future__ import annotations

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.models.lift.backproject import BackprojectLift
from xr2ct.models.lift.base import Lift, Windows, columns_ascend, is_lateral
from xr2ct.models.lift.noise import NoiseLift
from xr2ct.models.lift.repeat import RepeatLift
from xr2ct.models.lift.rotate import RotateLift
from xr2ct.projection.geometry import Geometry

__all__ = [
    "BackprojectLift",
    "Lift",
    "NoiseLift",
    "RepeatLift",
    "RotateLift",
    "Windows",
    "build_lift",
    "columns_ascend",
    "is_lateral",
]


def build_lift(experiment: Experiment, geometry: Geometry, cube_mm: float) -> Lift:
    """The lift that an experiment names: (b, view, row, col) → (b, view, z, y, x).

    `UserError` where it learns from sub-volumes and the lift makes whole volumes only.
    """
    lift = _lift(experiment, geometry, cube_mm)
    if experiment.data.window is not None and not lift.CUTS:
        raise UserError(
            f"lift.kind: {experiment.lift.kind} makes whole volumes only, and data.window is set; "
            "use repeat or backproject, or unset data.window"
        )
    return lift


def _lift(experiment: Experiment, geometry: Geometry, cube_mm: float) -> Lift:
    data, lift = experiment.data, experiment.lift
    match lift.kind:
        case "repeat":
            return RepeatLift(data.views, geometry, cube_mm, data.size, lift.scale)
        case "rotate":
            return RotateLift(data.views, geometry, cube_mm, data.size, lift.scale)
        case "backproject":
            return BackprojectLift(data.views, geometry, cube_mm, data.size)
        case "noise":
            return NoiseLift(data.views, geometry, cube_mm, data.size, lift.scale, lift.noise)
