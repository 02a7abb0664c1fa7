"""The table goes, and nothing of the patient."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.lungs import body_mask
from xr2ct.cohorts.phantom import chest, scanner
from xr2ct.cohorts.reader import read_volume
from xr2ct.cohorts.series import find_sources
from xr2ct.cohorts.volume import NativeVolume


def _without_table(native: NativeVolume) -> np.ndarray:
    cleared = replace(native, hu=native.hu.copy())
    canonical_cubes(cleared, [16], remove_table=True)
    return cleared.hu


@pytest.mark.parametrize("cohort", ["lctsc", "covid-19-ny-sbu"], ids=["arms raised, apart", "arms down"])
def test_a_phantom_keeps_every_voxel_of_its_body(cohort, monkeypatch):
    """The phantom knows how much of each voxel is body; its couches are a flat and a curved one. Of a
    shoulder that slopes out of the last slice a voxel that is body to a quarter may go."""
    drawn = []

    def remember(*arguments):
        drawn.append(chest.draw_chest(*arguments))
        return drawn[-1]

    monkeypatch.setattr(scanner, "draw_chest", remember)
    native = scanner.synthetic_chest(3, cohort)
    _, body = drawn[0]
    cleared = _without_table(native)
    changed = cleared != native.hu
    assert not (changed & (body > 0.3)).any()
    assert (changed & (body > 0.05)).sum() < 1e-4 * (body > 0.05).sum()
    far = ndimage.binary_dilation(body > 0.05, iterations=round(16 / native.spacing_mm[1]))
    table = (native.hu > -900) & ~far
    assert table.sum() > 1000
    assert (cleared[~far] == -1024).all()


def test_a_real_table(real_data):
    (source,), _ = find_sources(real_data / "chest" / "LIDC-IDRI-0001")
    native = read_volume(source)
    body = body_mask(native.hu, native.spacing_mm)
    cleared = _without_table(native)
    assert not ((cleared != native.hu) & body).any()
    # Skin and all: the largest piece of tissue on each slice, at the scan's own resolution.
    for slice_hu, slice_cleared in zip(native.hu[::6], cleared[::6], strict=True):
        pieces, _ = ndimage.label(ndimage.binary_opening(slice_hu > -300, iterations=5))
        patient = pieces == np.bincount(pieces.ravel())[1:].argmax() + 1
        assert (slice_hu == slice_cleared)[patient].all()
    assert (cleared[:, 460:] == -1024).all(), "the table's top lies behind row 445"


def test_the_cube_without_a_table(chest):
    """Of the small chest, whose table is one slab of −150 HU behind its back."""
    table = chest.hu == -150
    assert table.any()
    cleared = _without_table(chest)
    assert (cleared[table] == -1024).all()
    kept = canonical_cubes(replace(chest, hu=chest.hu.copy()), [32])
    found = canonical_cubes(replace(chest, hu=chest.hu.copy()), [32], remove_table=True)
    assert found.centre_mm == kept.centre_mm
    assert found.body_outside_cube == kept.body_outside_cube
