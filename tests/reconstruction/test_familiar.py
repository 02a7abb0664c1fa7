"""What a mapper has never seen the like of is told, by a number; patients that it has not met are not."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from xr2ct.cohorts.phantom.chest import draw_chest
from xr2ct.cohorts.phantom.grid import Grid
from xr2ct.cohorts.phantom.patient import draw_patient
from xr2ct.cohorts.phantom.shifts import shift_of
from xr2ct.errors import UserError
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import attenuation, project
from xr2ct.projection.views import scale_views
from xr2ct.reconstruction.familiar import FILE, LEAST_CASES, Familiar, load_familiar

ANGLES = (90.0, 0.0)
GEOMETRY = Geometry("x2ct", 541.0, 949.0, 500.0, pixels=64)
SIDE = 32


@cache
def _line_integrals(number: int) -> np.ndarray:
    """(view, row, col) of a patient."""
    patient = draw_patient(number, shift_of("lidc-idri"))
    grid = Grid((SIDE,) * 3, (320 / SIDE,) * 3, patient.rotation, (0.0, 20.0, -40.0))
    hu = torch.from_numpy(draw_chest(grid, patient, number)[0])[None]
    return project(attenuation(hu), (320 / SIDE,) * 3, GEOMETRY, ANGLES)[0].numpy()


@cache
def _described() -> Familiar:
    return Familiar.of(ANGLES, map(_line_integrals, range(32)), "max")


def test_patients_that_nothing_was_learnt_from_are_familiar() -> None:
    found = [_described().compare(scale_views(_line_integrals(100 + n), "max")) for n in range(8)]
    assert [f.angle_deg for f in found[0]] == list(ANGLES)
    assert np.mean([[one.far for one in patient] for patient in found]) <= 0.125
    distances = np.array([[one.distance for one in patient] for patient in found])
    assert 0.6 < np.median(distances) < 1.5


MISTAKES = {
    "noise": lambda views: np.random.default_rng(0).random(views.shape),
    "upside down": lambda views: views[:, ::-1],
    "mirrored": lambda views: views[:, :, ::-1],
    "the other view": lambda views: views[::-1],
    "a negative": lambda views: views.max(axis=(1, 2), keepdims=True) - views,
    "on its side": lambda views: views.transpose(0, 2, 1),
    "elsewhere": lambda views: np.roll(views, 6, axis=1),
    "blank": np.zeros_like,
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_what_is_no_such_x_ray_is_far_in_every_view(mistake: str) -> None:
    wrong = MISTAKES[mistake](_line_integrals(100))
    found = _described().compare(scale_views(wrong, "max"))
    for one in found:
        assert one.far
        assert one.distance > one.usual[1]
        assert one.share == 1.0
        assert f"than 100.0 % of them (distance {one.distance:.1f}; theirs" in str(one)


def test_it_grows_with_the_noise() -> None:
    views, noise = _line_integrals(100), np.random.default_rng(0).standard_normal((2, 64, 64))
    found = [
        _described().compare(scale_views(np.maximum(views + level * noise, 0), "max"))
        for level in (0, 0.1, 0.5, 2)
    ]
    for view in range(2):
        distances = [one[view].distance for one in found]
        assert distances == sorted(distances)


def test_the_largest_line_integrals_are_kept() -> None:
    largest = [_line_integrals(number).max(axis=(1, 2)) for number in range(32)]
    np.testing.assert_allclose(_described().maximum, np.median(largest, axis=0), rtol=1e-6)


def test_it_is_found_from_a_checkpoint_and_beside_weights(tmp_path: Path) -> None:
    checkpoint = tmp_path / "run" / "checkpoints" / "step-000012"
    checkpoint.mkdir(parents=True)
    assert load_familiar(checkpoint) is None
    save_file(_described().arrays(), tmp_path / "run" / FILE)
    (tmp_path / "run" / "best").symlink_to("checkpoints/step-000012")
    (tmp_path / "alone").mkdir()
    save_file(_described().arrays(), tmp_path / "alone" / FILE)
    views = scale_views(_line_integrals(100), "max")
    expected = _described().compare(views)
    for place in (checkpoint, tmp_path / "run" / "best", tmp_path / "alone"):
        found = load_familiar(place)
        assert found is not None
        assert found.compare(views) == expected


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE).write_bytes(b"damaged")
    with pytest.raises(UserError, match=f"{FILE}: damaged"):
        load_familiar(tmp_path)
    save_file({"distances": np.zeros(3)}, tmp_path / FILE)
    with pytest.raises(UserError, match=r"expected .*components.*, got distances"):
        load_familiar(tmp_path)


def test_too_few_cases_describe_nothing() -> None:
    views = [np.zeros((1, 64, 64), np.float32)] * (LEAST_CASES - 1)
    with pytest.raises(ValueError, match=f"at least {LEAST_CASES} cases"):
        Familiar.of([0.0], views, "max")
