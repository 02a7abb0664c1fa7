"""A mapper's last steps: towards agreement with the views it was given, unrolled and trained with it.

Of the attenuation µ that the network's volume states, in each step

    µ ← clip(µ − θ · α · C Aᵀ(Aµ − q))

where A projects, C is the covariance that a correction is taken to have (`projection.agreement.Spreading`), α
the step that would bring A along this direction nearest to q, and θ > 0 learnt: steepest descent, unrolled as
in learned reconstruction (Adler & Öktem, Inverse Problems 33:124007, 2017). Learnt too is what C leaves to
each voxel alone: two numbers a step. θ = 0 would leave the volume as it was.

q are the views as the grid can show them, in line integrals, so `data.xray_scale` has to be one: of views
that come divided by their own maximum only a gain could be fitted, and one that is fitted to a volume which
is no chest yet leads training astray.

Always in float32, whatever the weights' precision: line integrals rounded to half precision would be further
off than what is corrected.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from xr2ct.autocast import without_autocast
from xr2ct.config import Experiment, Section, validate
from xr2ct.errors import UserError
from xr2ct.projection.agreement import Spreading, at_grid
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import WATER_PER_MM, attenuation, backproject, project
from xr2ct.window import HuWindow

_FIRST_STEP = 0.5
_FIRST_OWN = 0.1


class Keys(Section):
    """A mapper's keys that are no network's."""

    consistency: int = Field(0, ge=0)
    """Steps towards agreement with the views, after the network; none where 0."""


def own_keys(keys: dict[str, Any], where: str) -> Keys:
    """Taken out of a mapper's keys, which leaves the network's; `UserError` for a wrong value."""
    return validate(Keys, {key: keys.pop(key) for key in Keys.model_fields if key in keys}, where)


class Consistency(nn.Module):
    """Volumes (b, 1, z, y, x) on the unit window and the views they were made of → volumes that agree."""

    def __init__(
        self,
        steps: int,
        angles: Sequence[float],
        geometry: Geometry,
        cube_mm: float,
        window: HuWindow,
        xray_scale: float,
    ) -> None:
        """xray_scale: the line integral that is 1 in the views."""
        super().__init__()
        self.angles, self.geometry, self.cube_mm = tuple(angles), geometry, cube_mm
        self.window, self.xray_scale = window, xray_scale
        self.step = nn.Parameter(torch.full((steps,), _before_softplus(_FIRST_STEP)))
        self.own = nn.Parameter(torch.full((steps,), _before_softplus(_FIRST_OWN)))
        ends = attenuation(window.to_hu(torch.tensor([0.0, 1.0])))
        self._lowest, self._highest = ends.tolist()

    def forward(self, volumes: Tensor, views: Tensor) -> Tensor:
        """In the volumes' type. views: (b, view, row, col), scaled as the mapper is given them.

        What lies beyond the window stays there: only the correction is added.
        """
        with without_autocast(views):
            unit = volumes[:, 0].float()
            start = mu = attenuation(self.window.to_hu(unit))
            voxel_mm = self.cube_mm / mu.shape[-1]
            shown = at_grid(views.float() * self.xray_scale, self.geometry, voxel_mm)
            spread = Spreading(mu.detach(), voxel_mm)
            for step, own in zip(F.softplus(self.step.float()), F.softplus(self.own.float()), strict=True):
                mu = self._corrected(mu, shown, spread, step, own)
            moved = (mu - start) * (1000 / WATER_PER_MM / self.window.width)
            return (unit + moved)[:, None].to(volumes.dtype)

    def _corrected(self, mu: Tensor, shown: Tensor, spread: Spreading, step: Tensor, own: Tensor) -> Tensor:
        lines = self._project(mu)
        gradient = self._backproject(lines - shown, mu)
        direction = spread(gradient, own)
        waits = ((mu <= self._lowest) & (direction > 0)) | ((mu >= self._highest) & (direction < 0))
        direction = direction.masked_fill(waits, 0)
        with torch.no_grad():
            along = self._project(direction).square().sum((1, 2, 3))
            length = (gradient * direction).sum((1, 2, 3)) / along.clamp(min=1e-12)
        return (mu - step * length.view(-1, 1, 1, 1) * direction).clamp(self._lowest, self._highest)

    def _project(self, mu: Tensor) -> Tensor:
        if mu.is_meta:  # without data there are no rays to be found; all else is counted
            pixels = self.geometry.pixels
            return mu.sum((1, 2, 3)).view(-1, 1, 1, 1).expand(-1, len(self.angles), pixels, pixels)
        return project(mu, (self.cube_mm / mu.shape[-1],) * 3, self.geometry, self.angles)

    def _backproject(self, pictures: Tensor, like: Tensor) -> Tensor:
        if like.is_meta:
            return pictures.sum((1, 2, 3)).view(-1, 1, 1, 1).expand(like.shape)
        z, y, x = like.shape[1:]
        return backproject(pictures, (z, y, x), (self.cube_mm / x,) * 3, self.geometry, self.angles)


def build_consistency(
    steps: int, experiment: Experiment, geometry: Geometry, cube_mm: float
) -> Consistency | None:
    """The last steps of an experiment's mapper; None where there are none.

    Raises `UserError` where no volume agrees with the views that it learns from.
    """
    if not steps:
        return None
    data, augmentation = experiment.data, experiment.augmentation
    reasons = {
        "data.window: a sub-volume has no line integrals of its own; unset it": data.window is not None,
        "data.scaling: minmax leaves unknown what attenuates how much; use window": data.scaling != "window",
        "data.xray_scale: max leaves a gain of each view unknown; set a line integral, as 5": (
            data.xray_scale == "max"
        ),
        "augmentation.contrast: what is drawn is no line integral; set it to null": (
            augmentation.contrast is not None
        ),
        "augmentation.detector: what is drawn is no line integral; unset it": augmentation.detector.on,
        "augmentation.rotation_deg: pictures turned in their plane agree with no volume; set it to 0": (
            augmentation.rotation_deg * augmentation.rotation_probability > 0
        ),
        "augmentation.flip: xray mirrors pictures alone, which then agree with no volume; use patient": (
            augmentation.flip == "xray" and augmentation.flip_probability > 0
        ),
        "augmentation.pose: pictures of another pose do not agree with the volume; unset it": (
            augmentation.pose.on
        ),
    }
    for reason, holds in reasons.items():
        if holds:
            raise UserError(f"mapper.consistency does not go with {reason}")
    window = HuWindow(*data.hu_window)
    return Consistency(steps, data.views, geometry, cube_mm, window, float(data.xray_scale))


def _before_softplus(value: float) -> float:
    return math.log(math.expm1(value))
