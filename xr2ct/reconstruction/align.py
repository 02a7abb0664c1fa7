"""Iterative alignment: how the patient lay in each view but the first, and the volume of views put right.

A mapper takes its views as of one patient who lay still. Where he moved between them, a fixed volume that is
registered to each view finds little of it: the volume was made of that very view, and agrees. So the mapper
stays in the loop. With poses p, c(q, p) the views as they would be of the patient who had not moved, x(p) the
mapper's volume of them and A(p) the projector of the moved patient, the residual

    r(p) = A(p) x(p) − q

is what no volume of the mapper's explains. A round is a step of Gauss–Newton on |r|² with a Gaussian prior on
p; the Jacobian is taken by differences, through the mapper, six passes a moved view. A pose counts only where
it explains much: what a mapper leaves over of views that fit together has directions too.

Rotations and shifts in a view's plane are found best. A shift along its beam, which only magnifies, and a
rotation about the vertical axis are vague, and it is the prior that keeps them small.

A view is put right by what the motion changes in the projection of the volume, and what the volume does not
explain is carried along (W) as if it lay in the plane through the isocentre:
c(q, p) = A(0) x + W(q − A(p) x), A with the gain that fits.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from monai.networks.layers import GaussianFilter
from torch import Tensor

from xr2ct.projection.geometry import Geometry, column_direction, source_direction
from xr2ct.reconstruction.beams import Beams, XRays
from xr2ct.reconstruction.pose import Pose

Predict = Callable[[Tensor], Tensor]
"""Line integrals (view, row, col) → a volume (z, y, x) on the unit window: a mapper with its scaling."""

BLUR_MM = 9.0
"""Standard deviation of the blur, at the isocentre, through which residuals are seen: a mapper's details are
not the patient's."""
NOISE = 0.02
"""Standard deviation of a residual's pixel, in parts of the views' root mean square, against which the prior
on poses is weighed."""
SPREAD = (3.0, 3.0, 3.0, 6.0, 6.0, 6.0)
"""Standard deviation of the prior on a pose, degrees and mm: that of ±5° and ±10 mm drawn evenly."""
STEP = (1.0, 1.0, 1.0, 2.0, 2.0, 2.0)
"""Of the differences, degrees and mm."""
WORTH = 0.85
"""Poses count where they leave at most this part of the residual's energy: those of views that fit together
leave more, whatever is estimated."""


@dataclass(frozen=True)
class Aligned:
    """What alignment found."""

    unit: Tensor
    """(z, y, x): the mapper's volume of the views put right."""
    poses: tuple[Pose, ...]
    """Of each view; of the first, and of all where no motion was made out, none."""
    line_integrals: Tensor
    """(view, row, col): the views put right."""
    error_before: float
    """‖r‖ / ‖q‖ over what was seen, blurred, of the mapper's volume of the views as they came."""
    error_after: float
    """The same of `unit`, with the poses."""
    rounds: int
    """Made, of those allowed."""


@torch.no_grad()
def align(predict: Predict, xrays: XRays, beams: Beams, rounds: int) -> Aligned:
    """Estimate the pose of each view but the first in at most `rounds` rounds, and map again.

    The first view is the reference: a motion common to all views cannot be told from a patient who lies
    there. `beams.poses` must be None. A round takes six passes of `predict` for each further view and one
    more. Stops where a round brings nothing, and leaves all as it was where the poses explain too little.
    """
    sight = _Sight.of(xrays, beams)
    q = xrays.line_integrals
    first = best = _state(predict, sight, None, q.new_zeros(len(q) - 1, 6))
    done = 0
    while done < rounds and len(q) > 1:
        done += 1
        motion = best.motion + _step(predict, sight, best)
        state = _state(predict, sight, best.unit, motion)
        if sight.cost(state) >= sight.cost(best):
            break
        best = state
    if best.energy > WORTH * first.energy:
        best = first
    before, after = (math.sqrt(state.energy) / sight.norm() for state in (first, best))
    return Aligned(best.unit, _poses(best.motion), best.views, before, after, done)


def put_right(xrays: XRays, beams: Beams, unit: Tensor, poses: tuple[Pose, ...]) -> Tensor:
    """Line integrals (view, row, col) as they would be of a patient who had lain as the geometry says.

    unit: (z, y, x), what the patient is taken to be. Views without a motion stay as they are; of what was
    not seen in a moved one, the volume's projection stands in the place.
    """
    views = xrays.line_integrals.clone()
    for view, pose in enumerate(poses):
        if pose.still:
            continue
        one = replace(beams, angles_deg=(beams.angles_deg[view],), poses=None)
        moved = replace(one, poses=(pose,)).project(unit)
        measured = views[view : view + 1]
        seen = torch.ones_like(measured) if xrays.seen is None else xrays.seen[view : view + 1].to(measured)
        gain, offset = _scale(moved, measured, seen, xrays.calibrated)
        left = _carried(seen * (measured - gain * moved - offset), pose, beams.geometry, one.angles_deg[0])
        views[view] = (gain * one.project(unit) + offset + left)[0]
    return views


def _carried(pictures: Tensor, pose: Pose, geometry: Geometry, angle_deg: float) -> Tensor:
    """Pictures (1, row, col) of a moved patient, moved back: exact for what lies in the isocentre's plane."""
    n = geometry.pixels
    half = geometry.detector_mm / 2 / geometry.magnification
    at = ((torch.arange(n, dtype=torch.float64) + 0.5) * (2 / n) - 1) * half
    across, up = torch.tensor(column_direction(angle_deg)).double(), torch.tensor([0.0, 0.0, 1.0]).double()
    matrix = pose.matrix()
    points = at[None, :, None] * across - at[:, None, None] * up
    points = points @ matrix[:, :3].T + matrix[:, 3]
    distance = geometry.sad_mm - points @ torch.tensor(source_direction(angle_deg)).double()
    scale = geometry.sid_mm / distance / (geometry.detector_mm / 2)
    places = torch.stack([points @ across * scale, -(points @ up) * scale], dim=-1)
    places = places[None].to(pictures)
    return F.grid_sample(pictures[None], places, padding_mode="border", align_corners=False)[0]


def _scale(model: Tensor, measured: Tensor, weights: Tensor, calibrated: bool) -> tuple[Tensor, Tensor]:
    """Of each view (view, row, col) the gain and offset (view, 1, 1) that take the model nearest to it.

    A gain always, since a mapper that sees views by their own maximum does not know their scale; an offset
    where the figures are known up to one.
    """
    axes = (-2, -1)
    total = weights.sum(axes, keepdim=True).clamp(min=1)
    zero = torch.zeros_like(total)
    a, q = ((weights * v).sum(axes, keepdim=True) / total for v in (model, measured))
    if calibrated:
        a, q = zero, zero
    centred = weights * (model - a)
    norm = (centred * (model - a)).sum(axes, keepdim=True)
    gain = (centred * (measured - q)).sum(axes, keepdim=True) / norm.clamp(min=1e-12)
    return gain, q - gain * a


@dataclass(frozen=True)
class _State:
    """Where the search is."""

    motion: Tensor
    """(view − 1, 6), as `Pose.motion`."""
    views: Tensor
    """Put right by it."""
    unit: Tensor
    """The mapper's volume of them."""
    residual: Tensor
    """(view, row, col), as `_Sight` sees it."""

    @property
    def energy(self) -> float:
        return float(self.residual.square().sum())


@dataclass(frozen=True)
class _Sight:
    """X-rays as poses are estimated from them: blurred, on pixels no finer than the blur needs."""

    xrays: XRays
    beams: Beams
    coarse: Beams
    pool: int
    """Pixels a side that are one of `coarse`."""
    measured: Tensor
    weights: Tensor
    """(view, row, col): the part of each coarse pixel that was seen."""

    @classmethod
    def of(cls, xrays: XRays, beams: Beams) -> _Sight:
        geometry = beams.geometry
        most = BLUR_MM * geometry.magnification / geometry.pixel_mm / 2
        pool = max(n for n in range(1, geometry.pixels + 1) if geometry.pixels % n == 0 and n <= max(1, most))
        q = xrays.line_integrals
        seen = torch.ones_like(q) if xrays.seen is None else xrays.seen.to(q)
        weights = F.avg_pool2d(seen[None], pool)[0]
        measured = F.avg_pool2d((seen * q)[None], pool)[0] / weights.clamp(min=1e-6)
        coarse = replace(beams, geometry=replace(geometry, pixels=geometry.pixels // pool))
        return cls(xrays, beams, coarse, pool, measured, weights)

    @property
    def sigma(self) -> float:
        """Of the blur, in coarse pixels."""
        geometry = self.coarse.geometry
        return BLUR_MM * geometry.magnification / geometry.pixel_mm

    def residual(self, unit: Tensor, motion: Tensor) -> Tensor:
        """(view, row, col) of a volume, moved by `motion`, against what was measured."""
        model = replace(self.coarse, poses=_poses(motion)).project(unit)
        gain, offset = _scale(model, self.measured, self.weights, self.xrays.calibrated)
        return self._blur(self.weights * (gain * model + offset - self.measured))

    def _blur(self, pictures: Tensor) -> Tensor:
        blurred: Tensor = GaussianFilter(2, self.sigma).to(pictures)(pictures[:, None])
        return blurred[:, 0]

    def precision(self) -> float:
        """What a residual's square counts for: as many blurred pixels as the blur covers are one."""
        share = (self.weights * self.measured.square()).sum() / self.weights.sum()
        return 1 / (NOISE**2 * float(share) * 4 * math.pi * self.sigma**2)

    def cost(self, state: _State) -> float:
        """Minus the logarithm of the posterior, twice."""
        prior = (state.motion / state.motion.new_tensor(SPREAD)).square().sum()
        return self.precision() * state.energy + float(prior)

    def norm(self) -> float:
        return float(self._blur(self.weights * self.measured).norm())


def _poses(motion: Tensor) -> tuple[Pose, ...]:
    return (Pose(), *(Pose.of(one.tolist()) for one in motion))


def _state(predict: Predict, sight: _Sight, unit: Tensor | None, motion: Tensor) -> _State:
    """At a motion (view − 1, 6), the views put right by what `unit` is."""
    views = sight.xrays.line_integrals
    if unit is not None:
        views = put_right(sight.xrays, sight.beams, unit, _poses(motion))
    mapped = predict(views)
    return _State(motion, views, mapped, sight.residual(mapped, motion))


def _step(predict: Predict, sight: _Sight, now: _State) -> Tensor:
    """Gauss–Newton's (view − 1, 6)."""
    columns = []
    for place in range(now.motion.numel()):
        step = STEP[place % 6]
        motion = now.motion.clone()
        motion.view(-1)[place] += step
        there = _state(predict, sight, now.unit, motion)
        columns.append((there.residual - now.residual).flatten() / step)
    jacobian = torch.stack(columns, dim=1).double()
    inverse = jacobian.new_tensor(SPREAD).square().reciprocal().repeat(len(now.motion))
    weighted = sight.precision() * jacobian.T
    gradient = weighted @ now.residual.flatten().double() + inverse * now.motion.flatten()
    step = torch.linalg.solve(weighted @ jacobian + torch.diag(inverse), -gradient)
    return step.view_as(now.motion).to(now.motion)
