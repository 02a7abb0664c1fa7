"""Synthetic chests: left told from right, tissues as dense as they should be, patients and cohorts unlike."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from xr2ct.cohorts.names import COHORTS
from xr2ct.cohorts.phantom import grid as grids
from xr2ct.cohorts.phantom import mediastinum, scan, synthetic_chest
from xr2ct.cohorts.phantom.chest import draw_chest
from xr2ct.cohorts.phantom.grid import Grid, Region
from xr2ct.cohorts.phantom.patient import Patient, draw_patient
from xr2ct.cohorts.phantom.scanner import Scan, as_volume
from xr2ct.cohorts.phantom.shifts import SHIFTS
from xr2ct.cohorts.phantom.torso import Profiles
from xr2ct.errors import UserError

SEEDS = range(6)


@dataclass(frozen=True)
class Truth:
    """A patient lying straight on a coarse grid, before any scanner."""

    patient: Patient
    hu: np.ndarray
    body: np.ndarray
    x: np.ndarray
    y: np.ndarray
    z: np.ndarray

    @property
    def lungs(self) -> np.ndarray:
        p = self.patient
        chest = (np.abs(self.x) < p.width) & (np.abs(self.y) < p.depth) & (self.z < 102 * p.length)
        return chest & (self.hu < -650) & (self.hu > -960) & (self.body > 0.99) & (self.z > p.dome[1] - 70)


@cache
def truth(seed: int, **changed: Any) -> Truth:
    patient = replace(draw_patient(seed, SHIFTS["lidc-idri"]), rotation=np.eye(3), **changed)
    grid = Grid((68, 72, 116), (5.0, 4.0, 4.0), np.eye(3), (0.0, 10.0, -20.0))
    hu, body = draw_chest(grid, patient, seed)
    everywhere = Region(grid, (slice(0, 68), slice(0, 72), slice(0, 116)))
    return Truth(patient, hu, body, everywhere.x, everywhere.y, everywhere.z)


@cache
def scanned(seed: int, cohort: str) -> Scan:
    return scan(seed, cohort)


@pytest.mark.parametrize("seed", SEEDS)
def test_heart_is_left_and_liver_right(seed: int) -> None:
    t = truth(seed, mediastinal_shift=0.0)
    p = t.patient
    heart = mediastinum.heart_centre(p)
    spine_y = float(Profiles.of(p).at(heart[2], Profiles.of(p).spine_y))
    between = (np.abs(t.z - heart[2]) < 15) & (np.abs(t.x) < 0.8 * p.width) & (t.hu > -200)
    between &= (t.y < spine_y - 30) & (t.y > -0.75 * p.depth)
    assert t.x[between].mean() > 8
    below = (
        (np.abs(t.z - (p.dome[1] - 35)) < 10) & (np.abs(t.x) < 0.7 * p.width) & (np.abs(t.y) < 0.5 * p.depth)
    )
    solid = below & (np.abs(t.hu - np.median(t.hu[below & (t.x < -20)])) < 20)
    assert t.x[solid].mean() < -10


@pytest.mark.parametrize("seed", SEEDS)
def test_right_lung_is_the_larger_and_stands_on_the_higher_dome(seed: int) -> None:
    t = truth(seed, mediastinal_shift=0.0)
    right, left = t.lungs & (t.x < 0), t.lungs & (t.x > 0)
    assert 1.02 < right.sum() / left.sum() < 1.6
    over_dome = {}
    for side, lung in ((-1, right), (1, left)):
        column = (
            lung
            & (np.abs(t.x - side * 0.5 * t.patient.width) < 12)
            & (np.abs(t.y - 0.25 * t.patient.depth) < 12)
        )
        over_dome[side] = t.z[column].min()
    assert over_dome[-1] > over_dome[1]


@pytest.mark.parametrize("seed", SEEDS)
def test_tissues_are_as_dense_as_they_should_be(seed: int) -> None:
    t = truth(seed)
    p = t.patient
    assert -900 < np.median(t.hu[t.lungs]) < -740
    assert t.hu[t.body == 0].max() == pytest.approx(-1000)
    histogram, edges = np.histogram(t.hu, bins=np.arange(-200, 201, 10))
    fat, muscle = edges[:20][histogram[:20].argmax()], edges[20:-1][histogram[20:].argmax()]
    assert -120 <= fat <= -80
    assert 20 <= muscle <= 90
    bone = t.hu > 300
    assert 0.01 < bone.sum() / (t.body > 0.5).sum() < 0.08
    assert 700 < t.hu.max() < 2500
    heart = mediastinum.heart_centre(p)
    core = (t.x - heart[0]) ** 2 + (t.y - heart[1]) ** 2 + (t.z - heart[2]) ** 2 < 20**2
    assert 25 < np.median(t.hu[core]) < 400


def test_contrast_agent_shows_in_the_vessels_alone() -> None:
    plain = truth(3, blood=(40.0, 40.0, 40.0), contrast=False)
    enhanced = truth(3, blood=(250.0, 240.0, 300.0), contrast=True)
    gained = enhanced.hu - plain.hu
    assert np.percentile(gained[gained > 5], 99) > 190
    unchanged = (plain.hu < -850) | (plain.hu > 600)
    assert np.abs(gained[unchanged]).mean() < 2


def test_patients_differ() -> None:
    volumes = np.array([truth(seed).lungs.sum() for seed in SEEDS]) * 5 * 4 * 4 / 1e6
    assert volumes.min() > 1.5 and volumes.max() < 8
    assert volumes.std() / volumes.mean() > 0.07
    widths = [draw_patient(seed, SHIFTS["lidc-idri"]) for seed in range(200)]
    assert np.std([p.width for p in widths]) > 5
    assert np.std([p.fat for p in widths]) > 4
    assert np.std([p.heart for p in widths]) > 0.03
    assert 0.3 < np.mean([p.female for p in widths]) < 0.6


def test_disease_changes_what_it_should() -> None:
    healthy = truth(1, findings=frozenset())
    for finding, low, high in (("ground-glass", -800, -100), ("effusion", -60, 60), ("mass", 0, 80)):
        ill = truth(1, findings=frozenset({finding}))
        air = healthy.lungs
        gained = ((ill.hu > low) & (ill.hu < high))[air].mean() - ((healthy.hu > low) & (healthy.hu < high))[
            air
        ].mean()
        assert gained > 0.003, finding
    holes = truth(1, findings=frozenset({"emphysema"}))
    assert (holes.hu[healthy.lungs] < -920).mean() > (healthy.hu[healthy.lungs] < -920).mean() + 0.02


def test_lobectomy_draws_the_heart_over() -> None:
    left, right = (draw_patient(s, replace(SHIFTS["lidc-idri"], findings={"lobectomy": 1.0})) for s in (2, 0))
    for p in (left, right):
        assert np.sign(p.mediastinal_shift) == p.lost_side
        assert p.dome[0] - p.dome[1] < 7 if p.lost_side > 0 else p.dome[0] - p.dome[1] > 20


def test_arms_beside_the_body_are_there() -> None:
    raised, beside = truth(4, arms_down=False), truth(4, arms_down=True)
    low = (raised.z < -80) & (
        np.abs(raised.x) > raised.patient.width + raised.patient.muscle + raised.patient.fat + 20
    )
    assert not (raised.body[low] > 0.5).any()
    assert (beside.body[low] > 0.5).mean() > 0.02
    assert (beside.hu[low] > 300).any()


def test_slabs_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    patient = draw_patient(5, SHIFTS["midrc-ricord-1b"])
    patient = replace(patient, findings=frozenset({"effusion", "ground-glass", "emphysema", "mass"}))
    grid = Grid((30, 48, 60), (10.0, 6.0, 6.0), patient.rotation, (0.0, 10.0, -20.0))
    whole, _ = draw_chest(grid, patient, 5)
    monkeypatch.setattr(grids, "SLAB_VOXELS", 4 * 48 * 60)
    slabs, _ = draw_chest(grid, patient, 5)
    np.testing.assert_array_equal(slabs, whole)


def test_the_same_seed_and_cohort_give_the_same_chest() -> None:
    first, again = as_volume(scanned(0, "covid-19-ny-sbu")), synthetic_chest(0, "covid-19-ny-sbu")
    np.testing.assert_array_equal(first.hu, again.hu)
    assert first.spacing_mm == again.spacing_mm and first.attributes == again.attributes
    assert draw_patient(0, SHIFTS["lctsc"]).width != draw_patient(1, SHIFTS["lctsc"]).width


@pytest.mark.parametrize("cohort", COHORTS)
def test_every_cohort_scans_a_whole_chest(cohort: str) -> None:
    taken = scanned(0, cohort)
    shift = SHIFTS[cohort]
    slices, rows, columns = taken.hu.shape
    assert taken.hu.dtype == np.int16 and rows == columns == shift.matrix
    assert 40 <= slices <= 190
    assert taken.grid.spacing_mm[0] in shift.slice_mm
    assert taken.hu.min() == -1024 and 700 < taken.hu.max() <= 3071
    air = (taken.hu < -600) & (taken.hu > -1000)
    assert air[slices // 2].mean() > 0.05
    assert air[0, rows // 3 : 2 * rows // 3, columns // 3 : 2 * columns // 3].mean() < 0.5


def _noise(taken: Scan) -> float:
    """Standard deviation of the change from a slice to the next but one within the liver."""
    z, y, x = np.round(taken.grid.index(np.array([[-55.0, 0.0, taken.patient.dome[0] - 45]]))[0]).astype(int)
    box = taken.hu[z - 2 : z + 3, y - 8 : y + 8, x - 8 : x + 8].astype(float)
    return float((box[2:] - box[:-2]).std() / np.sqrt(2))


def test_cohorts_differ_measurably() -> None:
    taken = {cohort: scanned(0, cohort) for cohort in COHORTS}
    noise = {cohort: _noise(s) for cohort, s in taken.items()}
    assert noise["lctsc"] < noise["lidc-idri"] and noise["anti-pd-1"] < noise["covid-19-ny-sbu"]
    assert max(noise.values()) > 2 * min(noise.values())
    fields = {cohort: s.grid.spacing_mm[2] * s.hu.shape[2] for cohort, s in taken.items()}
    assert min(fields["lctsc"], fields["nsclc-radiomics"]) > 455 > fields["lidc-idri"]
    assert taken["covid-19-ny-sbu"].grid.spacing_mm[0] == 5 and taken["lidc-idri"].grid.spacing_mm[0] <= 3
    assert taken["anti-pd-1"].patient.contrast
    assert (~taken["lidc-idri"].seen).any() and taken["lctsc"].seen.all()


def test_shares_of_disease_are_those_of_the_table() -> None:
    for cohort, shift in SHIFTS.items():
        drawn = [draw_patient(seed, shift).findings for seed in range(300)]
        for finding, share in shift.findings.items():
            assert np.mean([finding in f for f in drawn]) == pytest.approx(share, abs=0.1), (cohort, finding)


def test_an_unknown_cohort_is_refused() -> None:
    with pytest.raises(UserError, match="lidc-idri"):
        synthetic_chest(0, "lidc")


def test_a_laboratorys_own_cohort_has_no_synthetic_chests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own.yaml").write_text("ward: {}\n")
    monkeypatch.setenv("XR2CT_COHORTS", str(tmp_path / "own.yaml"))
    with pytest.raises(UserError, match="no synthetic chests of cohort 'ward'"):
        synthetic_chest(0, "ward")
