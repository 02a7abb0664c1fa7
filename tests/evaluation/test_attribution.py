"""Gradients by view against mappers whose gradient is known in closed form."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from xr2ct.evaluation.attribution import Attribution, attribute, attributions, shown_slices, variability
from xr2ct.models.lift import build_lift
from xr2ct.models.mapper import Mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.reporting.exhibits.attribution import make_attribution, make_paper_fig8
from xr2ct.reporting.study import Study
from xr2ct.run import Run

MakeRun = Callable[..., Run]


class Copies(nn.Module):
    """A lift that gives each pixel of a view (row, col) to every y of the volume (row, y, col)."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, views: Tensor, seeds: Tensor | None = None, windows: None = None) -> Tensor:
        return views.unsqueeze(3).expand(-1, -1, -1, self.size, -1)


class Weighted(nn.Module):
    """Σ weight · view + the first view's square, one channel."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor, seeds: Tensor | None = None) -> Tensor:
        weighted = (x * self.weights.view(1, -1, *[1] * (x.ndim - 2))).sum(1, keepdim=True)
        return weighted + x[:, :1] ** 2


def test_gradients_of_a_lifted_volume_and_of_the_pixels_behind_it() -> None:
    views = torch.rand(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.5, -2.0, 0.0])
    of_views, of_lifted = attribute(Mapper(Copies(6), Weighted(weights)), views, torch.zeros(2, 2))
    assert of_lifted is not None and of_lifted.shape == (2, 3, 4, 6, 5)
    expected = weights.view(1, 3, 1, 1).expand(2, 3, 4, 5).clone()
    expected[:, 0] += 2 * views[:, 0]
    torch.testing.assert_close(of_lifted, expected.abs().unsqueeze(3).expand_as(of_lifted))
    torch.testing.assert_close(of_views, 6 * expected.abs())


def test_a_network_that_takes_views_has_gradients_on_their_pixels_alone() -> None:
    views = torch.rand(1, 2, 4, 4)
    of_views, of_lifted = attribute(
        Mapper(None, Weighted(torch.tensor([1.0, -3.0]))), views, torch.zeros(1, 2)
    )
    assert of_lifted is None
    torch.testing.assert_close(of_views[:, 1], torch.full((1, 4, 4), 3.0))


def weighted(make_run: MakeRun) -> Run:
    """A run whose best mapper makes 0.3 · the view at 90° − 0.1 · that at 0°."""
    run = make_run({500: 0.0})
    file = run.checkpoint(500) / "mapper.safetensors"
    weights = load_file(file)
    kernel = torch.zeros_like(weights["backbone.weight"])
    kernel[0, :, 1, 1, 1] = torch.tensor([0.3, -0.1])
    save_file(weights | {"backbone.weight": kernel}, file)
    run.best.symlink_to("checkpoints/step-000500")
    return run


def test_of_a_run_it_is_that_of_its_best_checkpoint(make_run: MakeRun) -> None:
    run = weighted(make_run)
    found = attributions(run)
    assert [a.case for a in found] == ["lidc-idri-test0", "lidc-idri-test1"]
    for told in found:
        np.testing.assert_allclose(told.magnitude, [0.3, 0.1], rtol=1e-6)
        assert told.by_slice is not None and told.by_slice.shape == (2, 32)
        assert told.shown.shape == (2, len(shown_slices(32)), 32, 32)
    share = [v.share for v in variability(found)]
    assert share == pytest.approx([0.75, 0.25])
    assert len(attributions(run, patients=1)) == 1


def test_figure_and_table_of_a_run(make_run: MakeRun) -> None:
    run = weighted(make_run)
    study = Study.of([run])
    table, figure = make_attribution(study), make_paper_fig8(study)
    assert table is not None and figure is not None
    assert [(row["view"], row["patients"]) for row in table.rows] == [(90.0, 2), (0.0, 2)]
    assert [row["share"] for row in table.rows] == pytest.approx([0.75, 0.25])
    assert figure.columns == ("90°", "0°")
    assert figure.rows == (
        *[f"run: lidc-idri-test0, slice {z}" for z in (8, 16, 24)],
        "run: lidc-idri-test1, slice 16",
    )
    for row in figure.pictures:
        first, second = row
        assert first is not None and second is not None
        assert (first.note, second.note, first.colours) == ("75%", "25%", "heat")
        assert first.shares.mean() == pytest.approx(3 * second.shares.mean(), rel=1e-2)


def test_every_lift_passes_gradients_on(make_run: MakeRun) -> None:
    run = make_run({500: 0.0})
    experiment = run.experiment()
    assert experiment.resolved is not None
    geometry = Geometry(**experiment.resolved.geometry)
    for kind in ("repeat", "rotate", "backproject", "noise"):
        lift = build_lift(
            experiment.model_copy(update={"lift": experiment.lift.model_copy(update={"kind": kind})}),
            geometry,
            experiment.resolved.cube_mm,
        )
        views = torch.rand(1, 2, geometry.pixels, geometry.pixels)
        mapper = Mapper(lift, Weighted(torch.tensor([1.0, 0.5])))
        of_views, of_lifted = attribute(mapper, views, torch.tensor([[1, 2]]))
        assert of_lifted is not None
        torch.testing.assert_close(of_lifted[:, 1], torch.full_like(of_lifted[:, 1], 0.5))
        assert of_views[:, 1].sum() > 0, kind


def a(case: str, by_slice: list[list[float]]) -> Attribution:
    values = np.asarray(by_slice)
    return Attribution(case, values.mean(1), values, np.zeros((len(values), 3, 2, 2), np.float32))


def test_variability_between_patients_and_between_slices_by_hand() -> None:
    first, second = variability([a("p", [[1, 3], [1, 1]]), a("q", [[2, 2], [6, 6]])])
    assert (first.share, second.share) == pytest.approx(((2 / 3 + 1 / 4) / 2, (1 / 3 + 3 / 4) / 2))
    between = abs(2 / 3 - 1 / 4) / math.sqrt(2)
    assert first.share_patients == pytest.approx(between / first.share)
    assert first.magnitude_patients == pytest.approx(0)
    assert second.magnitude_patients == pytest.approx(5 / math.sqrt(2) / 3.5)
    assert first.magnitude_slices == pytest.approx(math.sqrt(2) / 2 / 2)
    assert first.share_slices == pytest.approx((0.25 / math.sqrt(2) / 0.625) / 2)
    assert second.magnitude_slices == 0


def test_what_is_not_defined_is_no_number() -> None:
    (alone,) = variability([Attribution("p", np.array([2.0]), None, np.zeros((1, 1, 2, 2), np.float32))])
    assert alone.share == 1
    assert all(math.isnan(x) for x in (alone.share_patients, alone.share_slices, alone.magnitude_patients))
    silent = variability([a("p", [[0, 0], [0, 0]]), a("q", [[0, 0], [0, 0]])])
    assert all(math.isnan(v.share) for v in silent)
