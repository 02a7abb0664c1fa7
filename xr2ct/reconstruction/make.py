"""From the X-rays of one patient to a volume, in one of the ways that there are.

    made = Maker(stages, way)(xrays, seeds, window)

The patient is laid right first (`align`), then each volume is mapped from X-rays that were corrected for it
and moved towards those that came in (`refine`), and of several volumes mean and standard deviation are taken.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from xr2ct.config import Way
from xr2ct.errors import UserError
from xr2ct.reconstruction.align import Aligned, align
from xr2ct.reconstruction.beams import Beams, XRays
from xr2ct.reconstruction.doubt import Draws, SampleDraws, Spread, build_draws
from xr2ct.reconstruction.priors import PriorOf, named_prior, total_variation
from xr2ct.reconstruction.refine import Refined, refine
from xr2ct.stages import Stages
from xr2ct.weights import Which, checkpoint_geometry
from xr2ct.window import HuWindow


@dataclass(frozen=True)
class Made:
    """A volume and what became known while it was made."""

    unit: Tensor
    """(z, y, x) float32 on the unit window."""
    doubt: Tensor | None = None
    """(z, y, x): the standard deviation of the draws about the volume, as it came out, not calibrated."""
    aligned: Aligned | None = None
    refined: Refined | None = None
    """Of the volume, or of the last of those that it is the mean of."""


class Maker:
    """A checkpoint, and the way in which its volumes are made."""

    def __init__(
        self, stages: Stages, way: Way, draws: Draws | None = None, prior: PriorOf = total_variation
    ) -> None:
        """draws: of more volumes than one pass of `stages`, what the way takes mean or deviation over.
        prior: that refining is held by."""
        self.stages, self.way, self._draws, self._prior = stages, way, draws, prior

    @classmethod
    def of(
        cls, checkpoint: Path, stages: Stages, way: Way, which: Which, device: torch.device | str
    ) -> Maker:
        """Of `stages`, loaded from `checkpoint`, with what the way needs beside it.

        Raises `UserError` where that is not there: a mapper that draws, two checkpoints, two views, the mean
        training view, features.
        """
        if way.samples > 1 and not stages.draws:
            raise UserError(f"{checkpoint}: samples: this mapper draws nothing at random; leave it at 1")
        prior = named_prior(way.prior, checkpoint, stages.experiment, device)
        draws: Draws | None = None
        if way.doubt:
            draws = build_draws(way.doubt, checkpoint, which, device, stages=stages, samples=way.samples)
        elif way.samples > 1:
            draws = SampleDraws(stages, way.samples)
        return cls(stages, way, draws, prior)

    @property
    def over(self) -> tuple[str, ...]:
        """Names of what the doubt is taken over."""
        return self._draws.names if self._draws and self.way.doubt else ()

    @property
    def cube_mm(self) -> float:
        """Side of the volume."""
        assert self.stages.experiment.resolved is not None
        return self.stages.experiment.resolved.cube_mm

    def beams(self, window: HuWindow, aligned: Aligned | None = None) -> Beams:
        """Where the mapper's views are taken from, and how the patient lay in each where that was found."""
        experiment = self.stages.experiment
        poses = None if aligned is None else aligned.poses
        return Beams(checkpoint_geometry(experiment), experiment.data.views, self.cube_mm, window, poses)

    def __call__(self, xrays: XRays, seeds: Tensor, window: HuWindow) -> Made:
        """xrays: of the mapper's views, on its device. seeds: (1, 2) int64, as `Batch.seeds`.

        window: the HU that are 0 and 1. Raises `UserError` as `align`, `refine` and the draws do.
        """
        beams, aligned = self.beams(window), None
        lines = xrays.line_integrals
        if self.way.align:
            aligned = align(lambda lines: self._map(lines, seeds), xrays, beams, self.way.align)
            beams, lines = self.beams(window, aligned), aligned.line_integrals
        views = self.stages.scale(lines)
        last: Refined | None = None

        def agreed(volume: Tensor) -> Tensor:
            nonlocal last
            if self.way.refine:
                last = refine(volume, xrays, beams, self.way.refine, prior=self._prior(volume))
                return last.unit
            return volume

        if self.way.samples > 1:
            spread = self._spread(views, seeds, agreed)
            return Made(spread.mean, spread.sd if self.way.doubt else None, aligned, last)
        unit = agreed(self.stages(views, seeds)[0, 0])
        refined = last
        # Draws are clipped to the window, as every volume is that is scored or written.
        doubt = self._spread(views, seeds, agreed).about(unit.clamp(0, 1)) if self.way.doubt else None
        return Made(unit, doubt, aligned, refined)

    def _map(self, line_integrals: Tensor, seeds: Tensor) -> Tensor:
        return self.stages(self.stages.scale(line_integrals), seeds)[0, 0]

    def _spread(self, views: Tensor, seeds: Tensor, agreed: Callable[[Tensor], Tensor]) -> Spread:
        assert self._draws is not None
        return Spread.of(agreed(volume[0]) for volume in self._draws(views, seeds))
