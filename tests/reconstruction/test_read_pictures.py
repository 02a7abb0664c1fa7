"""What a reconstruction is given: files of any kind, in the order of the mapper's channels."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import resolved

sys.path.append(str(Path(__file__).parents[1] / "projection"))
from made_radiograph import TRAINED, line_integrals, logarithmic, shown, write

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.reconstruction.familiar import Familiar
from xr2ct.reconstruction.pictures import read_pictures

ANGLES = (270.0, 180.0)


def _experiment(**data: object) -> Experiment:
    data = {"size": 16, "views": ANGLES, "geometry": "chest-1800", **data}
    return Experiment(name="x", data=data, resolved=resolved(TRAINED))


def _true(angle: float) -> np.ndarray:
    return line_integrals(angle, TRAINED).astype(np.float32)


def _dicom(path: Path, angle: float, **told: object) -> Path:
    view = {180.0: "PA", 270.0: "LL"}[angle]
    across = {180.0: "L", 270.0: "P"}[angle]
    pixels = logarithmic(shown(line_integrals(angle), angle))
    return write(path, pixels, **{"ViewPosition": view, "PatientOrientation": [across, "F"], **told})


@pytest.fixture(scope="module")
def familiar() -> Familiar:
    """Of one chest, moved, and attenuated more at one end than at the other, in twenty ways."""
    random = np.random.default_rng(0)
    truth = np.stack([_true(angle) for angle in ANGLES])
    ends = np.linspace(-1, 1, TRAINED.pixels)
    views = []
    for _ in range(20):
        along, across = random.uniform(-0.3, 0.3, 2)
        moved = np.roll(truth, random.integers(-2, 3, 2), axis=(1, 2))
        views.append(moved * (1 + along * ends[:, None]) * (1 + across * ends))
    return Familiar.of(ANGLES, views, "max")


def test_line_integrals_come_as_they_are_in_the_mappers_order(tmp_path: Path) -> None:
    for angle in ANGLES:
        np.save(tmp_path / f"{angle:g}.npy", _true(angle))
    given = [f"PA={tmp_path / '180.npy'}", f"LLAT={tmp_path / '270.npy'}"]
    pictures = read_pictures(given, _experiment(), TRAINED)
    assert list(pictures.files) == list(ANGLES)
    np.testing.assert_array_equal(pictures.xrays.line_integrals, np.stack([_true(a) for a in ANGLES]))
    assert pictures.xrays.calibrated
    assert pictures.xrays.seen is None
    assert pictures.notes == ()


def test_radiographs_come_beside_line_integrals(familiar: Familiar, tmp_path: Path) -> None:
    """A DICOM file without a suffix, with the gain of the training X-rays."""
    np.save(tmp_path / "lateral.npy", _true(270.0))
    given = [f"PA={_dicom(tmp_path / 'IM1', 180.0)}", f"270={tmp_path / 'lateral.npy'}"]
    pictures = read_pictures(given, _experiment(), TRAINED, familiar=familiar)
    assert not pictures.xrays.calibrated
    lateral, frontal = pictures.xrays.line_integrals.numpy()
    assert pictures.xrays.seen is not None
    seen = pictures.xrays.seen.numpy()
    np.testing.assert_array_equal(lateral, _true(270.0))
    assert seen[0].all()
    truth = _true(180.0)
    assert np.abs(frontal - truth)[seen[1]].mean() < 0.05 * truth.max()
    assert np.abs(frontal - truth).max() < 0.3 * truth.max()  # where the volume fades out
    assert 0.4 < seen[1].mean() < 0.7  # 328 mm of 430, squared: what the cube's near face covers
    assert [one.far for one in pictures.familiarity] == [False, False]
    assert all("IM1: " in note for note in pictures.notes)


def test_a_picture_that_was_read_wrongly_is_told(familiar: Familiar, tmp_path: Path) -> None:
    np.save(tmp_path / "lateral.npy", _true(270.0))
    wrong = _dicom(tmp_path / "x.dcm", 180.0, PhotometricInterpretation="MONOCHROME1")
    pictures = read_pictures(
        [f"PA={wrong}", f"LLAT={tmp_path / 'lateral.npy'}"], _experiment(), TRAINED, familiar=familiar
    )
    assert [one.far for one in pictures.familiarity] == [False, True]
    assert any("PA (180°): farther from the training X-rays than 100.0 %" in note for note in pictures.notes)


@pytest.mark.parametrize("curve", [lambda v: v**0.5, lambda v: 1 / (1 + np.exp(4 - 8 * v)), lambda v: v**2])
def test_a_tone_curve_is_undone_by_the_grey_levels_of_training(
    curve, familiar: Familiar, tmp_path: Path
) -> None:
    """But not where the header says that there is none."""
    np.save(tmp_path / "lateral.npy", _true(270.0))
    truth = _true(180.0)
    screen = line_integrals(180.0) / line_integrals(180.0).max()
    pixels = logarithmic(shown(curve(screen) - curve(np.zeros(1)), 180.0))
    off = {}
    for name, told in (("display", {}), ("log", {"PixelIntensityRelationship": "LOG"})):
        path = write(tmp_path / f"{name}.dcm", pixels, **told)
        given = [f"PA={path}", f"LLAT={tmp_path / 'lateral.npy'}"]
        pictures = read_pictures(given, _experiment(), TRAINED, familiar=familiar)
        assert pictures.xrays.seen is not None
        error = np.abs(pictures.xrays.line_integrals[1] - truth)[pictures.xrays.seen[1]].mean()
        off[name] = float(error) / truth.max()
        assert any("tone curve" in note for note in pictures.notes) == (name == "display")
    assert off["display"] < 0.05
    assert off["log"] > 2 * off["display"]


def test_without_training_x_rays_no_number_is_told(tmp_path: Path) -> None:
    given = [f"{angle:g}={_dicom(tmp_path / f'{angle:g}.dcm', angle)}" for angle in ANGLES]
    pictures = read_pictures(given, _experiment(), TRAINED)
    assert pictures.familiarity == ()
    assert "does not say what the X-rays looked like" in pictures.notes[-1]
    assert pictures.xrays.line_integrals.amax((1, 2)).tolist() == [1.0, 1.0]


def test_an_absolute_scale_needs_the_training_x_rays(familiar: Familiar, tmp_path: Path) -> None:
    given = [f"{angle:g}={_dicom(tmp_path / f'{angle:g}.dcm', angle)}" for angle in ANGLES]
    with pytest.raises(UserError, match=r"270\.dcm: a radiograph's gain is unknown.*data\.xray_scale 6"):
        read_pictures(given, _experiment(xray_scale=6.0), TRAINED)
    pictures = read_pictures(given, _experiment(xray_scale=6.0), TRAINED, familiar=familiar)
    largest = pictures.xrays.line_integrals.amax((1, 2))
    assert torch.allclose(largest, torch.from_numpy(familiar.maximum).float(), rtol=1e-5)


@pytest.mark.parametrize(
    ("given", "more", "message"),
    [
        (["PA=x.dcm"], {}, "trained for 270°, 180°, got 180°"),
        (["PA"], {}, "expected ANGLE=FILE or NAME=FILE with NAME of"),
        (["PA=a.dcm", "180=b.dcm"], {}, "180° is given twice"),
        (["PA=gone.dcm", "LLAT=gone.dcm"], {}, r"gone\.dcm: there is no such file"),
        (["PA=gone.npy", "LLAT=gone.npy"], {"accept": ["vew"]}, "--accept vew: did you mean 'view'"),
    ],
)
def test_a_wrong_request_is_told(given: list[str], more: dict[str, list[str]], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_pictures(given, _experiment(), TRAINED, **more)
