"""A mapper with the stages before it: from X-rays to the whole volume, coarse to fine, whole or by windows.

A run that learns from the stage before keeps a copy of it in RUN/coarse, with that one's own in
RUN/coarse/coarse, so that a checkpoint reconstructs when the other runs are gone. A file of `xr2ct export`
holds them all.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.exchange.model_file import Model, read_model
from xr2ct.models.mapper import Mapper
from xr2ct.projection.views import scale_views
from xr2ct.weights import Which, check_choice, load_mapper, model_mapper
from xr2ct.windows import Tiling, by_windows

BEFORE = "coarse"
"""The folder of the stage before, in a run or beside a checkpoint's weights."""


class Stages:
    """A mapper in evaluation mode, the experiment that trained it, and the stage before where it has one."""

    def __init__(
        self,
        mapper: Mapper,
        experiment: Experiment,
        before: StageBefore | None = None,
        model: Model | None = None,
        which: Which = "mapper",
    ) -> None:
        self.mapper, self.experiment, self.before = mapper, experiment, before
        self.model = model
        """The file of `xr2ct export` that it is of, which holds more than weights; None of a folder."""
        self.which = which
        """The mapper's weights as trained, or their average; of a file as was chosen when it was written."""
        data = experiment.data
        self.tiling = None if data.window is None else Tiling.of(data.size, data.window)
        """How the volume is cut where it is not made whole; as it was learnt, unless set otherwise."""
        self.at_once = 1
        """Windows made at a time."""

    @property
    def draws(self) -> bool:
        """Whether other seeds make another volume of the same views."""
        return self.mapper.draws or (self.before is not None and self.before.stages.draws)

    def scale(self, line_integrals: Tensor) -> Tensor:
        """(1, view, row, col) as the mapper sees them, of (view, row, col), on the same device."""
        scaled = scale_views(line_integrals.cpu().numpy(), self.experiment.data.xray_scale)
        return torch.from_numpy(scaled)[None].to(line_integrals.device)

    @torch.inference_mode()
    def __call__(self, views: Tensor, seeds: Tensor | None = None) -> Tensor:
        """(b, view, row, col) scaled line integrals → (b, 1, size, size, size) on the unit window, float32.

        On the mapper's device, where views must be.
        """
        coarse = None if self.before is None else self.before(views, seeds)
        if self.tiling is None:
            whole: Tensor = self.mapper(views, seeds, None, coarse)
            return whole.float()
        volumes = [
            self._by_windows(
                views[i : i + 1],
                None if seeds is None else seeds[i : i + 1],
                None if coarse is None else coarse[i : i + 1],
                self.tiling,
            )
            for i in range(len(views))
        ]
        return torch.stack(volumes)[:, None]

    def _by_windows(
        self, views: Tensor, seeds: Tensor | None, coarse: Tensor | None, tiling: Tiling
    ) -> Tensor:
        self.mapper.side = tiling.side

        def predict(origins: Tensor) -> Tensor:
            n = len(origins)
            window: Tensor = self.mapper(
                views.expand(n, -1, -1, -1),
                None if seeds is None else seeds.expand(n, -1),
                origins,
                None if coarse is None else coarse.expand(n, -1, -1, -1, -1),
            )
            return window

        return by_windows(predict, tiling, views.device, self.at_once)


class StageBefore:
    """The stage before, as several checkpoints of one run may share it."""

    def __init__(self, stages: Stages) -> None:
        self.stages = stages
        self._last: tuple[Tensor, Tensor | None, Tensor] | None = None

    def __call__(self, views: Tensor, seeds: Tensor | None = None) -> Tensor:
        """(b, 1, c, c, c) on the unit window and clipped to it; kept while the same tensor of views comes,
        with other seeds too where they make no other volume."""
        drawn_by = seeds if self.stages.draws else None
        last = self._last
        if last is None or last[0] is not views or last[1] is not drawn_by:
            last = self._last = views, drawn_by, self.stages(views, seeds).clamp(0, 1)
        return last[2]


def load_stages(
    checkpoint: Path,
    which: Which = "mapper",
    device: torch.device | str = "cpu",
    before: StageBefore | None = None,
) -> Stages:
    """A checkpoint's mapper and the stages before it, or with `before` in their place.

    Raises `UserError` as `load_mapper` does, and where the copy of a stage is gone.
    """
    if checkpoint.is_file():
        model = read_model(checkpoint)
        check_choice(model, which)
        return _of_model(model, 0, device, before)
    mapper, experiment = load_mapper(checkpoint, which, device)
    if experiment.coarse is not None and before is None:
        before = load_stage_before(checkpoint, device)
    return Stages(mapper, experiment, before, which=which)


def _of_model(model: Model, stage: int, device: torch.device | str, before: StageBefore | None) -> Stages:
    if before is None and stage + 1 < len(model.experiments):
        before = StageBefore(_of_model(model, stage + 1, device, None))
    mapper, which = model_mapper(model, stage, device), model.about.stages[stage].weights
    return Stages(mapper, model.experiments[stage], before, model, which)


def load_stage_before(checkpoint: Path, device: torch.device | str = "cpu") -> StageBefore:
    """Of a checkpoint that learnt from one; `UserError` where its copy is gone."""
    return StageBefore(load_stages(stage_before(checkpoint), "mapper", device))


def stage_before(checkpoint: Path) -> Path:
    """Where the copy of the stage before a checkpoint lies; `UserError` where it does not."""
    places = (checkpoint / BEFORE, checkpoint.resolve().parents[1] / BEFORE)
    for place in places:
        if place.is_dir():
            return place
    expected = " or ".join(map(str, places))
    raise UserError(f"{checkpoint}: the copy of the stage before it is missing, expected {expected}")
