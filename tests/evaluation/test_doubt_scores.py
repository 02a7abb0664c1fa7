"""Scores of doubt: against errors whose distribution is known, against scipy, and as columns of results."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats

from xr2ct.evaluation import doubt, metrics, reprojection
from xr2ct.evaluation.doubt import COLUMNS, score_doubt
from xr2ct.evaluation.results import LABELS, commit_rows, csv_text, read_rows, result_file
from xr2ct.evaluation.sweep import evaluate
from xr2ct.evaluation.truth import Truth
from xr2ct.run import Run
from xr2ct.seeds import generator
from xr2ct.window import HuWindow

SIDE = 32
WINDOW = HuWindow()


def made(factor: float = 1.0) -> tuple[torch.Tensor, torch.Tensor, Truth]:
    """A volume whose errors are normal, of a known SD from 10 to 60 HU that differs from voxel to voxel, and
    that SD times `factor`; the lungs are empty."""
    rng = generator(0, "doubt")
    sd = rng.uniform(10, 60, (SIDE,) * 3) / WINDOW.width
    unit = rng.uniform(0.3, 0.7, (SIDE,) * 3)
    volume = unit + sd * rng.standard_normal((SIDE,) * 3)
    body = torch.from_numpy(rng.random((SIDE,) * 3) < 0.5)
    truth = Truth("a", torch.from_numpy(unit), WINDOW, {"body": body, "lungs": body & ~body}, None, 1.0)
    return torch.from_numpy(volume), torch.from_numpy(sd * factor), truth


def test_normal_errors_of_the_stated_deviation_are_covered_as_stated() -> None:
    scores = score_doubt(*made())
    assert set(scores) == set(COLUMNS)
    for mode in ("doubt", "doubt_body"):
        for level in doubt.LEVELS:
            assert scores[f"{mode}/coverage_{level}"] == pytest.approx(level / 100, abs=0.012)
        assert scores[f"{mode}/calibration_error"] < 0.01
    assert scores["doubt/sd_hu"] == pytest.approx(35, rel=0.01)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_deviation_that_is_off_is_covered_less_or_more_and_costs_likelihood(factor: float) -> None:
    right, off = score_doubt(*made()), score_doubt(*made(factor))
    assert off["doubt/coverage_68"] == pytest.approx(2 * stats.norm.cdf(factor * 0.9945) - 1, abs=0.012)
    assert off["doubt/calibration_error"] > 0.1 > right["doubt/calibration_error"]
    assert off["doubt/nll"] > right["doubt/nll"] + 0.2
    assert off["doubt/spearman"] == pytest.approx(right["doubt/spearman"])


def test_correlations_and_likelihood_are_scipys_with_ties() -> None:
    volume, sd, truth = made()
    sd = (sd * 100).round() / 100  # equals to share a rank
    scores = score_doubt(volume, sd, truth)
    for mode, at in (("doubt", np.s_[:]), ("doubt_body", truth.masks["body"].numpy())):
        e, s = (((volume - truth.unit).numpy()[at] * WINDOW.width).ravel(), sd.numpy()[at].ravel() * 2500)
        assert scores[f"{mode}/pearson"] == pytest.approx(stats.pearsonr(s, np.abs(e))[0])
        assert scores[f"{mode}/spearman"] == pytest.approx(stats.spearmanr(s, np.abs(e))[0])
        logs = stats.norm.logpdf(e, scale=np.maximum(s, 1))
        assert scores[f"{mode}/nll"] == pytest.approx(-logs.mean())


def test_nothing_to_say_is_nan_and_no_error_is_covered() -> None:
    volume, sd, truth = made()
    scores = score_doubt(truth.unit, torch.zeros_like(sd), truth)
    assert all(math.isnan(v) for name, v in scores.items() if name.startswith("doubt_lungs/"))
    assert math.isnan(scores["doubt/pearson"]) and math.isnan(scores["doubt/spearman"])
    assert scores["doubt/coverage_50"] == 1 and math.isfinite(scores["doubt/nll"])
    # A volume beyond the window is that at its end.
    beyond = score_doubt(truth.unit + 5, sd, truth)
    assert beyond == pytest.approx(score_doubt(torch.ones_like(volume), sd, truth), nan_ok=True)


def test_results_hold_it_and_files_from_before_are_read(tmp_path: Path, make_run: Callable[..., Run]) -> None:
    run = make_run({500: 0.4})
    evaluate(run, cohorts=["lctsc"])
    file = result_file(run, "step-000500", "lctsc", "test")
    rows = read_rows(file)
    assert rows and all(math.isnan(rows[0][name]) for name in COLUMNS)
    scored = [{**row, **score_doubt(*made())} for row in rows]
    commit_rows(tmp_path / "new.csv", scored)
    again = read_rows(tmp_path / "new.csv")
    assert again and again[0]["doubt/coverage_95"] == pytest.approx(scored[0]["doubt/coverage_95"])
    old = [*LABELS, *metrics.COLUMNS, *reprojection.COLUMNS]
    (tmp_path / "old.csv").write_text(csv_text([old, *[[row[name] for name in old] for row in rows]]))
    before = read_rows(tmp_path / "old.csv")
    assert before and before[0]["honest/psnr"] == rows[0]["honest/psnr"]
    assert all(math.isnan(before[0][name]) for name in COLUMNS)
