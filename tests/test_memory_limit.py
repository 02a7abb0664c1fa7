"""How a volume is cut for a limit: whole, by the largest windows that fit, or not at all."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import torch
from tiny import resolved

from xr2ct import memory_limit
from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.memory_limit import GB, fit
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.stages import Stages

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of this process, whose memory is the other tests'."""
    monkeypatch.setattr(memory_limit, "_held", lambda _: 0)


def _stages(**keys: Any) -> Stages:
    experiment = Experiment(
        name="test",
        mapper={"name": "unet", "channels": (4, 8)},
        resolved=resolved(GEOMETRY),
        **keys,
    )
    return Stages(build_mapper(experiment, GEOMETRY, 320.0).eval(), experiment)


def _needed(side: int) -> float:
    """Bytes of a whole of that side, by experience of the function itself at another size."""
    stages = _stages(data={"size": side, "views": [90, 0]})
    return memory_limit.pass_bytes(stages, memory_limit._Choice(None))


def test_whole_where_it_fits_and_else_by_the_largest_windows(caplog: pytest.LogCaptureFixture) -> None:
    stages = _stages(data={"size": 160, "views": [90, 0]})
    fit(stages, 1.1 * _needed(160))
    assert stages.tiling is None and not caplog.records
    with caplog.at_level(logging.WARNING):
        fit(stages, 1.1 * _needed(96))
    assert stages.tiling is not None and (stages.tiling.side, stages.at_once) == (96, 1)
    assert "made by windows of 96³, though the mapper has learnt from whole volumes" in caplog.text
    volume = stages(torch.rand(1, 2, 32, 32))
    assert volume.shape == (1, 1, 160, 160, 160) and bool(volume.isfinite().all())


def test_sub_volumes_are_made_as_many_at_a_time_as_fit() -> None:
    stages = _stages(data={"size": 128, "window": 64, "views": [90, 0]})
    one = memory_limit.pass_bytes(stages, memory_limit._Choice(stages.tiling, 1))
    for times, at_once in ((1.2, 1), (2.2, 2), (7.0, 4), (20.0, 8)):
        fit(stages, times * one)
        assert stages.tiling is not None and (stages.tiling.side, stages.at_once) == (64, at_once)


def test_where_nothing_fits_it_says_what_would() -> None:
    with pytest.raises(
        UserError, match=r"--memory-gb 0\.001: windows of 64³ take about .* expected at least"
    ):
        fit(_stages(data={"size": 128, "views": [90, 0]}), 0.001 * GB)
    rotating = _stages(data={"size": 64, "views": [90, 0]}, lift={"kind": "rotate"})
    with pytest.raises(UserError, match="64³ take about"):
        fit(rotating, 0.001 * GB)
