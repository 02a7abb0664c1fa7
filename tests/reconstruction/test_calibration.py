"""Calibration of doubt: what it makes of errors that are known, whom it is fitted on, and its files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.reader import read_volume_file
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.doubt import score_doubt
from xr2ct.evaluation.truth import Truth
from xr2ct.reconstruction.calibration import (
    Calibration,
    Fit,
    calibration_file,
    header,
    read_calibration,
    write_calibration,
)
from xr2ct.run import Run
from xr2ct.seeds import generator
from xr2ct.window import HuWindow

WINDOW = HuWindow()
CUBE_MM = 320.0
SIDE = 32
NAMES = ("without-90", "without-0")


def smooth(rng: np.random.Generator) -> np.ndarray:
    field = gaussian_filter(rng.standard_normal((SIDE,) * 3), 3)
    return np.asarray(field / field.std())


def patient(number: int, share: float = 2.0, place_hu: float = 0.0) -> tuple[Tensor, Tensor, Tensor]:
    """Volume, doubt, truth: errors of `share` times the doubt's SD, and in the upper half of the cube further
    ones of `place_hu`."""
    rng = generator(number, "patient")
    volume = 0.5 + 0.02 * smooth(rng)
    doubt = 40 / WINDOW.width * np.exp(0.5 * smooth(rng))
    sd = np.sqrt(
        (share * doubt) ** 2 + (np.arange(SIDE) >= SIDE // 2)[:, None, None] * (place_hu / 2500) ** 2
    )
    truth = volume + sd * rng.standard_normal(volume.shape)
    return torch.from_numpy(volume).float(), torch.from_numpy(doubt).float(), torch.from_numpy(truth).float()


def fitted(count: int, first: int = 0, **told: float) -> Calibration:
    fit = Fit(CUBE_MM)
    for number in range(first, first + count):
        fit.add(f"p{number}", *patient(number, **told), WINDOW)
    return fit.calibration("doubt-views", NAMES, "mapper", "digest")


def scores(calibration: Calibration | None, number: int, **told: float) -> dict[str, float]:
    """Of a patient whom nothing was fitted on."""
    volume, doubt, truth = patient(number, **told)
    if calibration is not None:
        doubt = calibration.apply(volume, doubt, WINDOW, CUBE_MM)
    everywhere = torch.ones_like(volume, dtype=torch.bool)
    masks = {"body": everywhere, "lungs": everywhere}
    return score_doubt(volume, doubt, Truth("a", truth, WINDOW, masks, None, CUBE_MM / SIDE))


@pytest.mark.parametrize("share", [0.4, 3.0])
def test_doubt_that_is_off_by_a_factor_is_set_right(share: float) -> None:
    before, after = scores(None, 50, share=share), scores(fitted(4, share=share), 50, share=share)
    assert before["doubt/calibration_error"] > 0.15
    assert after["doubt/calibration_error"] < 0.02
    assert after["doubt/coverage_95"] == pytest.approx(0.95, abs=0.015)
    assert after["doubt/nll"] < before["doubt/nll"] - 0.3


def test_where_others_err_is_learnt() -> None:
    """Draws that agree on what is wrong in half of the cube say nothing of it; the validation errors do."""
    calibration = fitted(6, share=1.0, place_hu=200.0)
    before, after = (scores(c, 50, share=1.0, place_hu=200.0) for c in (None, calibration))
    assert before["doubt/coverage_95"] < 0.75 and before["doubt/spearman"] < 0.3
    assert after["doubt/coverage_95"] == pytest.approx(0.95, abs=0.02)
    assert after["doubt/spearman"] > 0.4
    place = torch.tensor(calibration.place_hu).view(16, 16, 16)
    assert place[12:].mean() > 2 * place[:4].mean()
    # It is read where the voxels lie: no other part has to make up for it.
    assert calibration.place > 0.75 and calibration.edge_mm < 5


def test_nobody_vouches_for_himself() -> None:
    """Where each errs in places of his own, the errors of few others say nothing of a further patient."""

    def spotted(number: int) -> tuple[Tensor, Tensor, Tensor]:
        rng = generator(number, "spots")
        volume = torch.full((SIDE,) * 3, 0.5)
        spots = np.kron(rng.random((8, 8, 8)) < 0.1, np.ones((4, 4, 4)))
        error = (20 + 400 * spots) / WINDOW.width * rng.standard_normal(spots.shape)
        return volume, torch.zeros_like(volume), (volume + torch.from_numpy(error)).float()

    fit = Fit(CUBE_MM)
    for number in range(3):
        fit.add(f"p{number}", *spotted(number), WINDOW)
    calibration = fit.calibration("doubt-views", NAMES, "mapper", "digest")
    found = []
    for number in range(50, 54):
        volume, doubt, truth = spotted(number)
        sd = calibration.apply(volume, doubt, WINDOW, CUBE_MM)
        found.append(((truth - volume).square() / sd.square()).mean().item())
    # Squares of errors are σ² on average; each vouching for himself they come to be many times that.
    assert np.mean(found) == pytest.approx(1, abs=0.35)


def test_edges_that_lie_off_are_found_in_millimetres() -> None:
    """The truth is the volume moved by some millimetres, either way for each patient."""
    fit = Fit(CUBE_MM)
    moved_mm = 6.0
    for number in range(4):
        rng = generator(number, "edges")
        sharp = (smooth(rng) > 0).astype(float) * 0.4 + 0.3
        volume = torch.from_numpy(gaussian_filter(sharp, 1.5)).float()
        slope = torch.gradient(volume, spacing=CUBE_MM / SIDE, dim=2)[0]
        truth = volume + slope * moved_mm * (-1) ** number
        fit.add(f"p{number}", volume, torch.zeros_like(volume), truth, WINDOW)
    calibration = fit.calibration("doubt-views", NAMES, "mapper", "digest")
    assert 0.3 * moved_mm < calibration.edge_mm < 1.2 * moved_mm
    # An edge across the motion is doubted, and flat tissue is not.
    doubted = calibration.apply(volume, torch.zeros_like(volume), WINDOW, CUBE_MM)
    flat = slope.abs() < slope.abs().quantile(0.3)
    assert doubted[~flat].mean() > 2 * doubted[flat].mean()


def test_intervals_are_what_the_validation_errors_needed() -> None:
    calibration = fitted(4)
    assert calibration.intervals[95] == pytest.approx(1.96, abs=0.06)
    assert calibration.coverage_after[95] == pytest.approx(0.95, abs=0.01)
    assert calibration.coverage_before[95] == pytest.approx(0.673, abs=0.02)  # 1.96 / 2 standard deviations
    assert (calibration.patients, calibration.voxels) == (4, 4 * 20_000)


def test_a_single_patient_is_enough_and_nobody_is_not() -> None:
    alone = fitted(1)
    assert len(set(alone.place_hu)) > 1 and np.isfinite(alone.place_hu).all()
    assert scores(alone, 50)["doubt/calibration_error"] < 0.03
    with pytest.raises(WorkFailed, match="nobody to calibrate doubt on"):
        Fit(CUBE_MM).calibration("doubt-views", NAMES, "mapper", "digest")


def test_it_is_the_same_in_any_order_of_voxels_drawn_and_again() -> None:
    assert fitted(3) == fitted(3)


def test_no_error_at_all_is_borne() -> None:
    fit = Fit(CUBE_MM)
    _, doubt, truth = patient(0)
    fit.add("p", truth, doubt, truth, WINDOW)
    sd = fit.calibration("doubt-views", NAMES, "mapper", "d").apply(truth, doubt, WINDOW, CUBE_MM)
    assert torch.isfinite(sd).all() and (sd > 0).all() and sd.max() < 0.01


def test_files(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    checkpoint = run.checkpoint(500)
    checkpoint.mkdir(parents=True)
    assert read_calibration(checkpoint, "doubt-views") is None
    calibration = fitted(2)
    file = write_calibration(run, 500, calibration)
    assert file == calibration_file(run, 500, "doubt-views")
    assert file == tmp_path / "run" / "doubt" / "step-000500" / "doubt-views.json"
    assert read_calibration(checkpoint, "doubt-views") == calibration
    assert read_calibration(checkpoint, "doubt-ensemble") is None
    # `best` leads there too, and a checkpoint that left its run has it with it.
    run.best.symlink_to("checkpoints/step-000500")
    assert read_calibration(run.best, "doubt-views") == calibration
    elsewhere = tmp_path / "alone"
    (elsewhere / "doubt").mkdir(parents=True)
    file.rename(elsewhere / "doubt" / file.name)
    assert read_calibration(elsewhere, "doubt-views") == calibration
    assert calibration.applies_to(NAMES, "mapper")
    assert not calibration.applies_to(NAMES, "mapper-ema")
    assert not calibration.applies_to(("without-90",), "mapper")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda values: "no JSON", "not a calibration"),
        (lambda values: {**values, "format": 2}, "format"),
        (lambda values: {**values, "place_hu": [1.0]}, "place_hu: expected 4096 figures, got 1"),
        (lambda values: {**values, "edge_mm": -1}, "edge_mm"),
        (lambda values: {**values, "edges": 1}, "unknown key 'edges'"),
    ],
)
def test_what_is_no_calibration_is_refused(tmp_path: Path, change, told: str) -> None:  # type: ignore[no-untyped-def]
    run = Run(tmp_path / "run")
    run.checkpoint(1).mkdir(parents=True)
    file = write_calibration(run, 1, fitted(1))
    values = change(json.loads(file.read_text()))
    file.write_text(values if isinstance(values, str) else json.dumps(values))
    with pytest.raises(UserError, match=told) as refused:
        read_calibration(run.checkpoint(1), "doubt-views")
    assert str(file) in str(refused.value)


def test_an_image_says_whether_it_is_calibrated() -> None:
    assert header("views", NAMES, None)["xr2ct_doubt_calibrated"] == "no"
    told = header("views", NAMES, fitted(1))
    assert told["xr2ct_doubt_calibrated"] == "on 1 patients of the validation split"
    assert (
        told["xr2ct_doubt_over"] == "without-90, without-0" and "95 %: " in told["xr2ct_doubt_intervals_sd"]
    )


def test_on_a_real_chest(real_data: Path) -> None:
    """Errors of a real chest's own shape: blurred, and so wrong at its edges alone."""
    native = read_volume_file(real_data / "chest" / "ct-64" / "ct-64.nrrd")
    truth = WINDOW.to_unit(torch.from_numpy(canonical_cubes(native, [64]).cubes[64]).float())
    volume = torch.from_numpy(gaussian_filter(truth.numpy(), 1.5))
    fit = Fit(CUBE_MM)
    fit.add("ct-64", volume, torch.full_like(volume, 0.001), truth, WINDOW)
    calibration = fit.calibration("doubt-views", NAMES, "mapper", "digest")
    sd = calibration.apply(volume, torch.full_like(volume, 0.001), WINDOW, CUBE_MM)
    masks = {"body": truth > 0.2, "lungs": truth < 0.2}
    told = score_doubt(volume, sd, Truth("ct-64", truth, WINDOW, masks, None, 5.0))
    assert told["doubt/spearman"] > 0.6 and told["doubt/coverage_95"] > 0.88
