"""Planes hang as a radiologist hangs them, and a difference has its colours."""

from __future__ import annotations

import matplotlib
import numpy as np
import pytest

from xr2ct.reporting import pictures
from xr2ct.reporting.patients import choose


def test_planes_have_the_head_up_and_the_front_on_top() -> None:
    volume = np.zeros((4, 6, 8))
    volume[-1] = 1  # head
    volume[:, 0] += 2  # front
    planes = pictures.planes(volume)
    assert planes["coronal"].shape == (4, 8) and planes["coronal"][0].min() == 1
    assert planes["axial"].shape == (6, 8) and planes["axial"][0].min() == 2
    assert planes["sagittal"].shape == (4, 6) and planes["sagittal"][:, 0].min() == 2


def test_a_difference_is_white_where_there_is_none_blue_below_and_red_above() -> None:
    picture = pictures.signed(np.array([[-500.0, 0.0, 500.0]]), limit=500)
    colours = matplotlib.colormaps[pictures.MAPS[picture.colours]](picture.shares.astype(float))
    below, none, above = colours[0, :, :3]
    assert below[2] > below[0] and above[0] > above[2]
    assert none == pytest.approx(np.ones(3), abs=0.05)


def test_an_x_ray_is_made_coarser_by_means_and_a_small_one_is_left() -> None:
    pixels = np.arange(16.0).reshape(4, 4)
    assert pictures.coarser(pixels, 2).tolist() == [[2.5, 4.5], [10.5, 12.5]]
    assert pictures.coarser(pixels, 3).shape == (2, 2)
    assert pictures.coarser(pixels) is pixels and pictures.coarser(pixels[:3, :3], 2).shape == (3, 3)


def test_the_median_patient_is_chosen_and_nobody_twice() -> None:
    scores = {"a": 20.0, "b": 22.0, "c": 18.0, "d": 25.0, "e": 21.0}
    assert choose(scores, ("median", "worst", "best")) == {"median": "e", "worst": "c", "best": "d"}
    assert choose({"a": 1.0}, ("median", "worst", "best")) == {"median": "a"}
