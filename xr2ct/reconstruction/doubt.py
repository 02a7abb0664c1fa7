"""Doubt: how far different reconstructions of the same X-rays lie apart, voxel by voxel.

    spread = Spread.of(ViewDraws(stages, stand_in, angles)(views, seeds))
    sd = spread.about(volume)

Draws come from a mapper's own random numbers (`SampleDraws`), from the checkpoints of a run or of several
(`EnsembleDraws`; after Lakshminarayanan et al., NeurIPS 2017), or from each view in turn replaced by the mean
view of the patients learnt from (`ViewDraws`). What they agree on may still be wrong: the deviation is
calibrated on the validation split before it is believed (`reconstruction.calibration`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from xr2ct.config import Doubt, Experiment
from xr2ct.errors import UserError
from xr2ct.reconstruction.calibration import read_stand_in
from xr2ct.reconstruction.draws import seeds_of_draw
from xr2ct.run import Run, step_of
from xr2ct.stages import Stages, load_stages
from xr2ct.weights import Which, checkpoint_experiment

Reconstruct = Callable[[Tensor, Tensor], Tensor]
"""As `Stages`: views (b, view, row, col) and seeds (b, 2) → (b, 1, z, y, x) on the unit window."""

MEMBERS = 5
"""Most checkpoints of a run that make an ensemble."""


class Draws(Protocol):
    """Where different volumes of the same X-rays come from."""

    @property
    def names(self) -> tuple[str, ...]:
        """What each draw is, at least two."""

    def __call__(self, views: Tensor, seeds: Tensor) -> Iterator[Tensor]:
        """Volumes (b, z, y, x) float32 on the unit window and clipped to it, one for each name.

        views: (b, view, row, col) scaled line integrals. seeds: (b, 2) int64, as `methods.base.Batch.seeds`.
        """


class Spread:
    """Draws that are added one by one, so that two volumes are held for any number of them: their mean and
    their deviations (Welford, Technometrics 4:419–420, 1962)."""

    def __init__(self) -> None:
        self.draws = 0
        self._mean = self._squares = torch.zeros(())

    @classmethod
    def of(cls, draws: Iterable[Tensor]) -> Spread:
        spread = cls()
        for volume in draws:
            spread.add(volume)
        return spread

    def add(self, volume: Tensor) -> None:
        """One more draw, float32; of the same shape and device each time."""
        self.draws += 1
        if self.draws == 1:
            self._mean, self._squares = volume.clone(), torch.zeros_like(volume)
            return
        step = volume - self._mean
        self._mean = self._mean + step / self.draws
        self._squares = self._squares + step * (volume - self._mean)

    @property
    def mean(self) -> Tensor:
        """Of the draws."""
        return self._mean

    @property
    def sd(self) -> Tensor:
        """Of the draws, with Bessel's correction; `ValueError` below two of them."""
        if self.draws < 2:
            raise ValueError(f"a standard deviation needs two draws, got {self.draws}")
        return (self._squares / (self.draws - 1)).sqrt()

    def about(self, volume: Tensor) -> Tensor:
        """The doubt of a volume that need not be their mean: the root of their variance and the square of
        its distance from their mean."""
        return torch.hypot(self.sd, self._mean - volume)


class SampleDraws:
    """Other random numbers of one mapper."""

    def __init__(self, reconstruct: Reconstruct, samples: int) -> None:
        if samples < 2:
            raise UserError(f"doubt: samples: needs at least 2 samples, got {samples}")
        self._reconstruct, self._samples = reconstruct, samples

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"draw-{draw}" for draw in range(self._samples))

    def __call__(self, views: Tensor, seeds: Tensor) -> Iterator[Tensor]:
        """As `Draws`; `UserError` at the second draw where it is the first again."""
        first = None
        for draw in range(self._samples):
            volume = _clipped(self._reconstruct(views, seeds_of_draw(seeds, draw)))
            if draw == 1 and first is not None and torch.equal(first, volume):
                raise UserError(
                    "doubt: samples: this mapper makes the same volume of every seed; expected one that "
                    "draws at random, as method flow; use doubt: views or ensemble"
                )
            first = volume if draw == 0 else None
            yield volume


class EnsembleDraws:
    """Several mappers of the same X-rays."""

    def __init__(self, members: Mapping[str, Reconstruct]) -> None:
        """members: by name."""
        if len(members) < 2:
            raise UserError(f"doubt: ensemble: needs at least 2 checkpoints, got {len(members)}")
        self._members = members

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self._members)

    def __call__(self, views: Tensor, seeds: Tensor) -> Iterator[Tensor]:
        """As `Draws`."""
        return (_clipped(member(views, seeds)) for member in self._members.values())


class ViewDraws:
    """Each view in turn replaced, and the others as they are."""

    def __init__(self, reconstruct: Reconstruct, stand_in: Tensor, angles_deg: Sequence[float]) -> None:
        """stand_in: (view, row, col), scaled as the mapper sees views: the mean of those it learnt from."""
        if len(angles_deg) < 2:
            raise UserError(f"doubt: views: needs at least 2 views, this mapper has {len(angles_deg)}")
        self._reconstruct, self._stand_in, self._angles = reconstruct, stand_in, tuple(angles_deg)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(f"without-{angle:g}" for angle in self._angles)

    def __call__(self, views: Tensor, seeds: Tensor) -> Iterator[Tensor]:
        """As `Draws`."""
        for place, picture in enumerate(self._stand_in):
            without = views.clone()
            without[:, place] = picture
            yield _clipped(self._reconstruct(without, seeds))


class Member:
    """A checkpoint of an ensemble, loaded when it is first needed."""

    def __init__(self, checkpoint: Path, which: Which = "mapper", device: torch.device | str = "cpu") -> None:
        self.checkpoint, self._which, self._device = checkpoint, which, device

    @cached_property
    def stages(self) -> Stages:
        return load_stages(self.checkpoint, self._which, self._device)

    def __call__(self, views: Tensor, seeds: Tensor) -> Tensor:
        return self.stages(views, seeds)


def build_draws(
    doubt: Doubt,
    checkpoint: Path,
    which: Which = "mapper",
    device: torch.device | str = "cpu",
    *,
    stages: Reconstruct | None = None,
    samples: int = 1,
    members: Sequence[Path] = (),
    stand_in: Tensor | None = None,
) -> Draws:
    """Draws of a checkpoint of a run.

    stages: that checkpoint where it is loaded already. samples: as `config.Way.samples`. members: the
    ensemble, `members_of` the checkpoint where empty. stand_in: as `calibration.read_stand_in` gives it,
    which is read where None. Raises `UserError` where there are no two draws.
    """
    own = stages or Member(checkpoint, which, device)
    if doubt == "samples":
        return SampleDraws(own, samples)
    if doubt == "ensemble":
        paths = [path.resolve() for path in members or members_of(checkpoint)]
        check_alike(paths)
        here = checkpoint.resolve()
        return EnsembleDraws(
            {_name(path, here): own if path == here else Member(path, which, device) for path in paths}
        )
    experiment = checkpoint_experiment(checkpoint)
    if stand_in is None and len(experiment.data.views) > 1:
        stand_in = read_stand_in(checkpoint)
    views = torch.zeros(0) if stand_in is None else stand_in.to(device)
    return ViewDraws(own, views, experiment.data.views)


def members_of(checkpoint: Path, most: int = MEMBERS) -> list[Path]:
    """The whole checkpoints of the second half of training up to one of its run, in order, that one last.

    The first half is another mapper, not one that doubts. `UserError` where there are no two.
    """
    place = checkpoint.resolve()
    if not place.is_dir():
        raise UserError(f"{checkpoint}: doubt: ensemble: expected a checkpoint's folder in its run")
    run, last = Run(place.parents[1]), step_of(place)
    steps = [step for step in run.steps() if last / 2 <= step <= last and step][-most:]
    if len(steps) < 2:
        raise UserError(
            f"{checkpoint}: doubt: ensemble: needs 2 checkpoints of the half of training before it, found "
            f"{len(steps)}; train with a smaller training.checkpoint_every, or use doubt: views"
        )
    return [run.checkpoint(step).resolve() for step in steps]


def check_alike(checkpoints: Sequence[Path]) -> None:
    """`UserError` where the members of an ensemble do not make the same volume of the same X-rays."""
    first, *others = [(path, _facts(checkpoint_experiment(path))) for path in checkpoints]
    for path, facts in others:
        for key, value in first[1].items():
            if facts[key] != value:
                raise UserError(
                    f"{path}: {key} {facts[key]}, but {first[0]} has {value}; an ensemble needs them alike"
                )


def _facts(experiment: Experiment) -> dict[str, object]:
    data, resolved = experiment.data, experiment.resolved
    assert resolved is not None
    keys = ("size", "views", "hu_window", "scaling", "xray_scale")
    return {
        **{f"data.{key}": getattr(data, key) for key in keys},
        "cube_mm": resolved.cube_mm,
        **{f"geometry.{key}": value for key, value in resolved.geometry.items() if key != "name"},
    }


def _name(path: Path, beside: Path) -> str:
    """``step-000500`` in the same run, ``RUN/step-000500`` in another."""
    return path.name if path.parent == beside.parent else f"{path.parents[1].name}/{path.name}"


def _clipped(volumes: Tensor) -> Tensor:
    return volumes[:, 0].float().clamp(0, 1)
