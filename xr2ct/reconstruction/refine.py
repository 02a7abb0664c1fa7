"""Data consistency: a volume moved until its projections are the X-rays that came in.

From the mapper's output x₀, in attenuation µ between what 0 and 1 of the window mean,

    min_µ  ‖S(Aµ − q)‖² / (2 ε²‖Sq‖²)  +  ρ/2 · ‖µ − µ₀‖² / ‖µ₀‖²  +  R(x)

where A projects, S keeps the pixels that hold a measurement, ε is the noise level relative to the X-rays and
R is one of `reconstruction.priors`. A volume is held the nearer to the mapper's the better that one fits:
ρ = `NEARNESS` / (e₀² − d²), of the error e₀ that it comes with and what even the true volume would have, the
detail d that the grid cannot show. Conjugate gradients (Polak & Ribière 1969), preconditioned by the
covariance that a correction is taken to have (`projection.agreement.Spreading`) and projected on the bounds
(Bertsekas, SIAM J. Control Optim. 20:221–246, 1982): voxels at a bound that would leave it wait. They end by
Morozov's discrepancy principle (Soviet Math. Dokl. 7:414–417, 1966), once ‖S(Aµ − q)‖ ≤ ε‖Sq‖: what goes
beyond that fits noise. ε is `reconstruction.noise.noise_level` unless stated.

X-rays of real pixels hold detail that a grid's voxels cannot show, and a volume that is to show it is
sharpened along the beams. So they come in with less of it, as much less as the noise level allows.

Pictures that are no line integrals (`XRays.calibrated`) are taken for gain · line integral + offset, fitted
for each view by least squares before each step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from xr2ct.errors import UserError
from xr2ct.projection.agreement import Spreading, at_grid, fit_response
from xr2ct.projection.projector import WATER_PER_MM, attenuation
from xr2ct.reconstruction.beams import Beams, XRays
from xr2ct.reconstruction.noise import detail_level, noise_level
from xr2ct.reconstruction.priors import Prior
from xr2ct.reconstruction.unseen import LinearBeams

NEARNESS = 0.3
"""The squared size of a correction against that of the error it is for, both relative, where it costs as much
as being off by the noise level does."""

Stopped = Literal["noise level", "steps", "no further gain"]

_LEFT_OUT = 0.6
"""Of the noise level, what the X-rays are shown without; the rest is left for the steps to end at."""

_LEAST_NOISE = 1e-4
"""That the objective is scaled by: a level of 0 is for stopping alone."""

_SMALL = 1e-3
"""Of the window: the step by which a prior's curvature is found."""

_LEAST_EXCESS = 0.1
"""Of the error that a volume comes with, what it is taken to be to blame for at least."""

_TRIES = 4
_LEAST_GAIN = 1e-4
"""Relative fall of the objective below which there is nothing more to gain."""


@dataclass(frozen=True)
class Refined:
    """A volume that agrees with its X-rays, as far as it went."""

    unit: Tensor
    """(z, y, x) on the unit window."""
    steps: int
    """That were taken."""
    before: float
    """‖S(Aµ − q)‖ / ‖Sq‖ of the volume that came in: with all pixels seen, `reprojection/relative_l2`."""
    after: float
    """Of the one that goes out."""
    noise: float
    """ε, in the same measure."""
    stopped: Stopped
    """Why it ended."""


def refine(
    unit: Tensor,
    xrays: XRays,
    beams: Beams,
    steps: int,
    *,
    prior: Prior | None = None,
    noise: float | None = None,
    nearness: float = NEARNESS,
) -> Refined:
    """The volume (z, y, x) on the unit window after at most so many steps towards its X-rays.

    noise: ε, estimated where None; 0 goes on to the last step. Air that stays air keeps its value. Computes
    in float32 on the volume's device, in inference mode or out of it. Raises `UserError` where nothing of the
    X-rays is seen, or an uncalibrated one does not grow with what the volume has along its rays.
    """
    with torch.inference_mode(False), torch.no_grad():
        start = unit.detach().float().clone().clamp(0, 1)
        lines = xrays.line_integrals.detach().to(start.device, torch.float32).clone()
        seen = torch.ones_like(lines, dtype=torch.bool)
        if xrays.seen is not None:
            seen = xrays.seen.to(start.device, torch.bool).clone()
        if not (lines * seen).any():
            raise UserError("the X-rays are 0 wherever they are seen: there is nothing to agree with")
        xrays = XRays(lines, seen, xrays.calibrated)
        return _Problem(start, xrays, seen, beams, prior, nearness).descend(steps, noise)


@dataclass(frozen=True)
class _Asked:
    """What is asked of a volume's line integrals, (view, row, col)."""

    lines: Tensor
    """The X-rays, 0 where they are not seen."""
    shown: Tensor
    """The same without what the noise level allows to leave out."""
    noise: float
    detail: float
    """Relative L2 of what the grid cannot show."""

    @classmethod
    def of(cls, lines: Tensor, seen: Tensor, beams: Beams, voxel_mm: float, noise: float | None) -> _Asked:
        """noise: as stated, or to be estimated."""
        if noise is None:
            noise = noise_level(lines, beams.geometry, voxel_mm, seen)
        detail = detail_level(lines, beams.geometry, voxel_mm, seen)
        left_out = min(1.0, _LEFT_OUT * noise / detail) if detail else 0.0
        smooth = at_grid(lines, beams.geometry, voxel_mm, seen)
        return cls(lines * seen, torch.lerp(lines, smooth, left_out) * seen, noise, detail)

    @property
    def norm(self) -> float:
        return _dot(self.lines, self.lines) ** 0.5

    def error(self, lines: Tensor) -> float:
        """Relative L2 of line integrals."""
        return float(torch.linalg.vector_norm((lines - self.lines).double())) / self.norm


@dataclass(frozen=True)
class _State:
    """A volume's attenuation (z, y, x), and its line integrals where they are seen."""

    mu: Tensor
    lines: Tensor


@dataclass(frozen=True)
class _Way:
    """A direction to go in, with what the next one needs of it."""

    gradient: Tensor
    direction: Tensor
    product: float
    """Of the gradient with itself, by the preconditioner."""


class _Problem:
    """The objective of one patient, and the way down."""

    def __init__(
        self, unit: Tensor, xrays: XRays, seen: Tensor, beams: Beams, prior: Prior | None, nearness: float
    ) -> None:
        self._unit, self._xrays, self._seen, self._beams = unit, xrays, seen, beams
        self._prior = prior
        self._voxel_mm = beams.cube_mm / len(unit)
        self._start = attenuation(beams.window.to_hu(unit))
        self._lowest, self._highest = attenuation(beams.window.to_hu(unit.new_tensor([0.0, 1.0]))).tolist()
        self._nearness, self._pull = nearness, 0.0
        self._rays = LinearBeams(beams, self._start, seen)
        self._spread = Spreading(self._start, self._voxel_mm)

    def descend(self, steps: int, noise: float | None) -> Refined:
        """Projected, preconditioned conjugate gradients."""
        now = self._state(self._start)
        asked = self._ask(now, noise)
        before = error = asked.error(now.lines)
        excess = max(before**2 - asked.detail**2, (_LEAST_EXCESS * before) ** 2, 1e-12)
        self._pull = self._nearness / excess / (_dot(self._start, self._start) or 1.0)
        taken, way, stuck = 0, None, False
        while taken < steps and error > asked.noise and not stuck:
            way = self._way(now, asked, way)
            now, stuck = self._along(way, now, asked)
            taken += not stuck
            asked = asked if self._xrays.calibrated else self._ask(now, noise)
            error = asked.error(now.lines)
        stopped: Stopped = "no further gain" if stuck else "steps"
        if error <= asked.noise:
            stopped = "noise level"
        return Refined(self._as_unit(now.mu), taken, before, error, asked.noise, stopped)

    def _state(self, mu: Tensor) -> _State:
        return _State(mu, self._rays.project(mu))

    def _ask(self, now: _State, noise: float | None) -> _Asked:
        """The X-rays as line integrals, by the response that fits the volume best."""
        lines = self._xrays.line_integrals
        if not self._xrays.calibrated:
            gain, offset = fit_response(lines, now.lines, self._seen)
            for angle, value in zip(self._beams.angles_deg, gain.flatten().tolist(), strict=True):
                if value <= 0:
                    raise UserError(
                        f"the X-ray at {angle:g}° does not grow with what lies along its rays: "
                        "is it inverted, or another view?"
                    )
            lines = (lines - offset) / gain
        return _Asked.of(lines, self._seen, self._beams, self._voxel_mm, noise)

    def _way(self, now: _State, asked: _Asked, last: _Way | None) -> _Way:
        """Where to go; voxels wait at a bound that they would leave."""
        gradient = self._gradient(now, asked)
        waits = ((now.mu <= self._lowest) & (gradient > 0)) | ((now.mu >= self._highest) & (gradient < 0))
        gradient = gradient.masked_fill(waits, 0)
        steepest = self._spread(gradient).masked_fill(waits, 0)
        product = _dot(gradient, steepest)
        direction = -steepest
        if last is not None:
            share = (product - _dot(last.gradient, steepest)) / last.product
            direction = direction + max(0.0, share) * last.direction.masked_fill(waits, 0)
            if _dot(gradient, direction) >= 0:
                direction = -steepest
        return _Way(gradient, direction, product)

    def _along(self, way: _Way, now: _State, asked: _Asked) -> tuple[_State, bool]:
        """To the least of the objective in a direction, or where that is not less, and that there is none."""
        value = self._value(now, asked)
        if way.product <= 0:
            return now, True
        length = -_dot(way.gradient, way.direction) / self._curvature(now, way.direction, asked)
        for _ in range(_TRIES):
            there = self._state((now.mu + length * way.direction).clamp(self._lowest, self._highest))
            if value - self._value(there, asked) > _LEAST_GAIN * value:
                return there, False
            length /= 4
        return now, True

    def _scale(self, asked: _Asked) -> float:
        return 1 / (max(asked.noise, _LEAST_NOISE) * asked.norm) ** 2

    def _value(self, now: _State, asked: _Asked) -> float:
        away, moved = now.lines - asked.shown, now.mu - self._start
        value = (self._scale(asked) * _dot(away, away) + self._pull * _dot(moved, moved)) / 2
        return value if self._prior is None else value + float(self._prior(self._as_unit(now.mu)))

    def _gradient(self, now: _State, asked: _Asked) -> Tensor:
        gradient = self._scale(asked) * self._rays.adjoint(now.lines - asked.shown)
        return gradient + self._pull * (now.mu - self._start) + self._of_prior(now.mu)

    def _curvature(self, now: _State, direction: Tensor, asked: _Asked) -> float:
        """Of the objective along a direction, twice its derivative; of the prior by a small step."""
        lines = self._rays.project(direction)
        curvature = self._scale(asked) * _dot(lines, lines) + self._pull * _dot(direction, direction)
        if self._prior is None:
            return curvature
        small = _SMALL * self._highest / float(direction.abs().max())
        change = self._of_prior(now.mu + small * direction) - self._of_prior(now.mu)
        return curvature + max(0.0, _dot(change, direction) / small)

    def _of_prior(self, mu: Tensor) -> Tensor:
        """The gradient of the prior's cost by attenuation."""
        if self._prior is None:
            return torch.zeros_like(mu)
        with torch.enable_grad():
            mu = mu.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self._prior(self._as_unit(mu)), mu)
        return gradient

    def _as_unit(self, mu: Tensor) -> Tensor:
        """On the unit window; what does not attenuate stays as it was, as far as it was air."""
        window = self._beams.window
        unit = (mu * (1000 / WATER_PER_MM) - 1000 - window.low) / window.width
        air = (-1000 - window.low) / window.width
        return torch.where(mu > 0, unit, self._unit.clamp(max=max(air, 0.0)))


def _dot(a: Tensor, b: Tensor) -> float:
    return float((a.double() * b).sum())
