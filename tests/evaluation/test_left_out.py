"""A view left out: what stands in its place, and that nothing else of a run's evaluation takes notice."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from xr2ct import cli
from xr2ct.errors import UserError
from xr2ct.evaluation.leaderboard import leaderboard_file
from xr2ct.evaluation.left_out import LeftOut, evaluate_left_out, mean_views, read_left_out
from xr2ct.evaluation.pending import pending
from xr2ct.evaluation.results import read_results, read_rows, result_file
from xr2ct.evaluation.sweep import evaluate
from xr2ct.models.lift import build_lift
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.views import scale_views
from xr2ct.run import Run
from xr2ct.store import Store

MakeRun = Callable[..., Run]

WEIGHTS = (0.75, 0.25)
"""Of the lifted views at 90° and 0°: the reconstruction is their weighted sum."""


def weigh_views(run: Run, step: int) -> None:
    """Make a checkpoint's mapper that sum."""
    for name in ("mapper", "mapper-ema"):
        file = run.checkpoint(step) / f"{name}.safetensors"
        weights = load_file(file)
        kernel = torch.zeros_like(weights["backbone.weight"])
        kernel[0, :, 1, 1, 1] = torch.tensor(WEIGHTS)
        save_file(weights | {"backbone.weight": kernel}, file)


@pytest.fixture
def run(make_run: MakeRun) -> Run:
    made = make_run({500: 0.0, 1000: 2.0})
    weigh_views(made, 500)
    return made


def scaled(store: Store, split: str) -> np.ndarray:
    """(case, view, row, col) as the mapper sees them."""
    return np.stack([scale_views(store.xray(c, "x2ct", (90.0, 0.0)), "max") for c in store.split(split)])


def test_source_names_are_read_back() -> None:
    for told in (LeftOut("step-000500", 90.0, "mean"), LeftOut("step-001000", 33.3, "zero")):
        assert LeftOut.of(told.source) == told
    assert LeftOut("step-000500", 90.0, "mean").source == "step-000500~without-90"
    assert LeftOut.of("step-000500") is None and LeftOut.of("prior-mean") is None


def test_mean_view_is_that_of_the_training_cases_as_the_mapper_sees_them(run: Run, stores: Path) -> None:
    store = Store.open(stores / "lidc-idri.zarr")
    data = run.experiment().data
    told = mean_views(store, store.split("train"), data, 3, torch.device("cpu"))
    np.testing.assert_allclose(told, scaled(store, "train").mean(0), rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("fill", ["mean", "zero"])
def test_scores_are_of_the_other_views_and_what_stands_in(run: Run, stores: Path, fill: str) -> None:
    evaluate(run)
    assert run.best_step() == 500
    done = evaluate_left_out(run, fill=fill)  # type: ignore[arg-type]
    assert len(done.written) == 2 * 3
    found = {(told.angle, result.cohort, result.split): (told, result) for told, result in read_left_out(run)}
    assert {key[0] for key in found} == {90.0, 0.0} and len(found) == 6
    store = Store.open(stores / "lidc-idri.zarr")
    experiment = run.experiment()
    assert experiment.resolved is not None
    lift = build_lift(experiment, Geometry(**experiment.resolved.geometry), store.cube_mm)
    stand_in = scaled(store, "train").mean(0) * (fill == "mean")
    window = experiment.data.hu_window
    for place, angle in enumerate((90.0, 0.0)):
        told, result = found[angle, "lidc-idri", "test"]
        assert (told.checkpoint, told.fill, result.step) == ("step-000500", fill, None)
        views = scaled(store, "test")
        views[:, place] = stand_in[place]
        lifted = lift(torch.from_numpy(views).float())
        volumes = (lifted * torch.tensor(WEIGHTS)[:, None, None, None]).sum(1).clamp(0, 1).double().numpy()
        for row, case, volume in zip(result.rows, store.split("test"), volumes, strict=True):
            hu = store.volume(case, 32).astype(float)
            truth = np.clip((hu - window[0]) / (window[1] - window[0]), 0, 1)
            assert row["case"] == case.id
            assert row["honest/mse"] == pytest.approx(np.mean((volume - truth) ** 2), rel=1e-4)


def test_nothing_else_takes_notice(run: Run) -> None:
    evaluate(run)
    best, results, text = run.best_step(), read_results(run), leaderboard_file(run).read_text()
    done = evaluate_left_out(run)
    assert done.best == best == run.best_step()
    assert pending(run) == []
    again = evaluate(run)
    assert again.written == []
    assert [(r.source, r.cohort, r.split) for r in read_results(run)] == [
        (r.source, r.cohort, r.split) for r in results
    ]
    assert leaderboard_file(run).read_text() == text


def test_again_computes_only_what_is_missing(run: Run) -> None:
    evaluate(run)
    evaluate_left_out(run, cohorts=["lctsc"])
    assert {result.cohort for _, result in read_left_out(run)} == {"lctsc"}
    (file,) = {result_file(run, "step-000500~without-0", "lctsc", "test")}
    before = file.stat().st_mtime_ns
    assert len(evaluate_left_out(run).written) == 4 and evaluate_left_out(run).written == []
    assert file.stat().st_mtime_ns == before and read_rows(file)


def test_a_single_view_cannot_be_left_out(make_run: MakeRun) -> None:
    with pytest.raises(UserError, match="has one view, 90°"):
        evaluate_left_out(make_run({500: 0.0}, views=[90]))


def test_command(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["evaluate", str(run.path), "--leave-out"]) == 2
    assert "no best checkpoint yet" in capsys.readouterr().err
    assert cli.main(["evaluate", str(run.path), "--step", "1000", "--leave-out", "zero"]) == 0
    assert "step-001000~without-90-zero" in capsys.readouterr().out
    assert {told.fill for told, _ in read_left_out(run)} == {"zero"}
    assert cli.main(["evaluate", str(run.path), "--leave-out", "mena"]) == 2
