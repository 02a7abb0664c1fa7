"""What of a volume is made up rather than seen: its part in the null space of the projector.

Rays from two sources cross a volume in far fewer directions than it has voxels. Of the attenuation µ that a
reconstruction states, the views determine A⁺Aµ, the smallest volume with the same line integrals; the rest,
µ − A⁺Aµ, leaves no trace in them, and whoever says it took it from elsewhere (Barrett & Myers, Foundations of
Image Science, 2004, ch. 1). A⁺Aµ is the limit of CGLS from a volume of zeros, since all its iterates lie in
the range of Aᵀ (Hestenes & Stiefel, J. Res. Nat. Bur. Stand. 49:409–436, 1952; Björck, Numerical Methods for
Least Squares Problems, 1996, §7.4).

The iteration ends where the line integrals of what is left are below a tolerance of those of the volume: what
shows in the views by less than that counts as unseen.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from xr2ct.projection.projector import WATER_PER_MM, attenuation, project
from xr2ct.reconstruction.beams import Beams
from xr2ct.reconstruction.pose import Pose, move

TOLERANCE = 1e-3
MOST_ITERATIONS = 200


@dataclass(frozen=True)
class Unseen:
    """A volume's part that its views say nothing of."""

    part_hu: Tensor
    """(z, y, x) float32, signed, in HU above or below what is seen: 1000 HU are the attenuation of water."""
    fraction: float
    """‖µ − A⁺Aµ‖ / ‖µ‖."""
    residual: float
    """Line integrals of the part over those of the volume, ‖A(µ − A⁺Aµ)‖ / ‖Aµ‖."""
    iterations: int

    def fraction_within(self, mask: Tensor, volume_hu: Tensor) -> float:
        """`fraction` over the voxels of a mask (z, y, x), of the volume in HU; NaN where it is empty."""
        part = self.part_hu[mask].double() * (WATER_PER_MM / 1000)
        whole = attenuation(volume_hu)[mask].double()
        return float(torch.linalg.vector_norm(part) / torch.linalg.vector_norm(whole))


def unseen(
    unit: Tensor,
    beams: Beams,
    seen: Tensor | None = None,
    *,
    tolerance: float = TOLERANCE,
    most_iterations: int = MOST_ITERATIONS,
) -> Unseen:
    """The part of a volume (z, y, x) on the unit window that leaves no trace in the views.

    seen: (view, row, col) bool, pixels that hold a measurement; all where None. A voxel that no ray crosses
    is unseen wholly. On the volume's device, in float32 or float64.
    """
    mu = attenuation(beams.window.to_hu(unit))
    rays = LinearBeams(beams, mu, seen)
    part, residual, iterations = null_part(mu, rays.project, rays.adjoint, tolerance, most_iterations)
    fraction = float(torch.linalg.vector_norm(part.double()) / torch.linalg.vector_norm(mu.double()))
    return Unseen((part * (1000 / WATER_PER_MM)).float(), fraction, residual, iterations)


def null_part(
    x: Tensor,
    forward: Callable[[Tensor], Tensor],
    adjoint: Callable[[Tensor], Tensor],
    tolerance: float,
    most_iterations: int,
) -> tuple[Tensor, float, int]:
    """x − A⁺Ax by CGLS, ‖A(x − A⁺Ax)‖ / ‖Ax‖, and the iterations; of any linear A and its adjoint."""
    left = x.clone()
    residual = forward(x)
    whole = _norm(residual)
    if whole == 0:
        return left, 0.0, 0
    gradient = adjoint(residual)
    direction = gradient.clone()
    gamma = _norm(gradient) ** 2
    iteration = 0
    while iteration < most_iterations and _norm(residual) > tolerance * whole and gamma > 0:
        iteration += 1
        trace = forward(direction)
        step = gamma / _norm(trace) ** 2
        left -= step * direction
        residual -= step * trace
        gradient = adjoint(residual)
        gamma, before = _norm(gradient) ** 2, gamma
        direction = gradient + (gamma / before) * direction
    return left, _norm(forward(left)) / whole, iteration


class LinearBeams:
    """Attenuation (z, y, x), 1/mm, to line integrals (view, row, col), and the exact adjoint."""

    def __init__(self, beams: Beams, like: Tensor, seen: Tensor | None = None) -> None:
        self._beams, self._seen = beams, seen
        self._poses = beams.poses or (Pose(),) * len(beams.angles_deg)
        # The graph of a linear operator is the same at any volume, and kept it gives the adjoint alone.
        with torch.inference_mode(False), torch.enable_grad():
            self._zero = torch.zeros_like(like, requires_grad=True)
            self._traces = self._line_integrals(self._zero)

    @torch.no_grad()
    def project(self, mu: Tensor) -> Tensor:
        return self._line_integrals(mu)

    def adjoint(self, images: Tensor) -> Tensor:
        (volume,) = torch.autograd.grad(self._traces, self._zero, images, retain_graph=True)
        return volume

    def _line_integrals(self, mu: Tensor) -> Tensor:
        beams, spacing_mm = self._beams, (self._beams.cube_mm / len(mu),) * 3
        views = []
        for angle, pose in zip(beams.angles_deg, self._poses, strict=True):
            moved = mu if pose.still else move(mu, mu.new_tensor(pose.motion), beams.cube_mm)
            views.append(project(moved[None], spacing_mm, beams.geometry, (angle,))[0])
        lines = torch.cat(views)
        return lines if self._seen is None else lines * self._seen


def _norm(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values.double()))
