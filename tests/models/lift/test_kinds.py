"""`lift.kind`: each of its choices is what it says, in the mapper as alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.models.lift import BackprojectLift, NoiseLift, RepeatLift, RotateLift, build_lift
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.geometry import Geometry

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
KINDS = {"repeat": RepeatLift, "rotate": RotateLift, "backproject": BackprojectLift, "noise": NoiseLift}


def _experiment(**lift: Any) -> Experiment:
    return Experiment(
        name="test",
        lift=lift,
        mapper={"name": "unet", "channels": (4, 8)},
        data={"size": 16, "views": ["LLAT", 45]},
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_its_own_lift_with_the_experiments_views_and_size(kind: str) -> None:
    lift = build_lift(_experiment(kind=kind), GEOMETRY, 320.0)
    assert type(lift) is KINDS[kind]
    views = torch.rand(2, 2, 32, 32)
    expected = KINDS[kind]((270.0, 45.0), GEOMETRY, 320.0, 16)(views)
    assert torch.equal(lift(views), expected)


def test_kinds_differ() -> None:
    views = torch.rand(1, 2, 32, 32)
    lifted = [build_lift(_experiment(kind=kind), GEOMETRY, 320.0)(views) for kind in KINDS]
    assert all(not torch.equal(a, b) for i, a in enumerate(lifted) for b in lifted[:i])


@pytest.mark.parametrize("kind", ["repeat", "rotate", "noise"])
def test_the_scale_is_the_experiments(kind: str) -> None:
    lift = build_lift(_experiment(kind=kind, scale="stretch"), GEOMETRY, 320.0)
    middle = lift(torch.ones(1, 2, 32, 32))[0, :, 0, 8, 8]  # beyond the beam at the isocentre
    torch.testing.assert_close(middle, torch.ones(2))


def test_noise_is_drawn_as_the_experiment_says() -> None:
    views, seeds = torch.rand(1, 2, 32, 32), torch.tensor([[3, 4]])
    by = {
        n: build_lift(_experiment(kind="noise", noise=n), GEOMETRY, 320.0) for n in ("patient", "iteration")
    }
    swapped = by["iteration"](views, seeds.flip(1))
    assert torch.equal(by["patient"](views, seeds), swapped)
    assert not torch.equal(by["iteration"](views, seeds), swapped)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_views_are_refused(kind: str) -> None:
    lift = build_lift(_experiment(kind=kind), GEOMETRY, 320.0)
    for shape in ((1, 1, 32, 32), (1, 2, 32, 64), (2, 32, 32)):
        with pytest.raises(UserError, match=r"expected \(batch, 2, 32, 32\), got"):
            lift(torch.zeros(shape))
    with pytest.raises(UserError, match="at least one view"):
        KINDS[kind]([], GEOMETRY, 320.0, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapper_passes_seeds_on_and_its_operations_can_be_counted(kind: str) -> None:
    mapper = build_mapper(_experiment(kind=kind), GEOMETRY, 320.0)
    views = torch.rand(2, 2, 32, 32)
    one, two = (mapper(views, torch.tensor([[s, s], [s, s]])) for s in (1, 2))
    assert torch.equal(one, two) == (kind != "noise")
    counted = mapper.to("meta")(torch.empty(1, 2, 32, 32, device="meta"))  # as `xr2ct summary` does
    assert counted.shape == (1, 1, 16, 16, 16)
