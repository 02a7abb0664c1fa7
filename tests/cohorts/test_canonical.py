"""The cube about the lungs, the body and the lungs themselves."""

from __future__ import annotations

import numpy as np
import pytest

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.lungs import body_mask, lung_mask
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.volume import NativeVolume


def _chest(spacing, offset=(0.0, 0.0, 0.0), couch=True, size_mm=(260.0, 330.0, 400.0)) -> NativeVolume:
    """A body of elliptic section on a couch that touches its back, two lungs; `offset` moves the patient.

    The lungs are ellipsoids of half axes 90, 60, 45 mm, 75 mm to either side: middle (130, 150, 200) mm.
    """
    z, y, x = np.meshgrid(
        *((np.arange(round(n / s)) * s - o) for n, s, o in zip(size_mm, spacing, offset, strict=True)),
        indexing="ij",
        sparse=True,
    )
    hu = np.full(np.broadcast_shapes(z.shape, y.shape, x.shape), -1000, np.int16)
    hu[((x - 200) / 150) ** 2 + ((y - 150) / 100) ** 2 + 0 * z < 1] = 30
    for side in (-75, 75):
        lung = ((z - 130) / 90) ** 2 + ((y - 150) / 60) ** 2 + ((x - 200 - side) / 45) ** 2 < 1
        hu[lung] = -850
    # The airway leaves through the neck, so the lungs are no closed hole.
    hu[((x - 200) / 8) ** 2 + ((y - 150) / 8) ** 2 + 0 * z < 1] = -1000
    hu[(z > 125) & (z < 135) & (np.abs(y - 150) < 8) & (np.abs(x - 200) < 60)] = -1000
    if couch:
        # Two shells of 3 mm and foam between, touching the back: filled, it would be a part of the body.
        thick = max(3.0, spacing[1])
        shell = round(-1000 + 1000 * 3.0 / thick)
        flat = (np.abs(x - 200) < 190) & (z > -1e9)
        hu[flat & (y >= 250) & (y < 290)] = -930
        hu[flat & (np.abs(y - 250) <= thick / 2)] = shell
        hu[flat & (np.abs(y - 290) <= thick / 2)] = shell
        hu[
            (np.abs(np.abs(x - 200) - 190) <= max(1.5, spacing[2] / 2)) & (y >= 250) & (y <= 290) & (z > -1e9)
        ] = shell
    return NativeVolume(hu, spacing, {})


GRIDS = [(2.5, 0.8, 0.8), (5.0, 1.5, 1.5), (5.0, 5.0, 5.0), (2.5, 2.5, 2.5), (1.0, 3.0, 3.0)]


@pytest.mark.parametrize("spacing", GRIDS)
def test_body_without_couch_and_lungs_within(spacing):
    native = _chest(spacing)
    body, lungs = body_mask(native.hu, spacing), lung_mask(native.hu, spacing)
    litre = np.prod(spacing) / 1e6
    assert body.shape == lungs.shape == native.hu.shape
    assert body.sum() * litre == pytest.approx(np.pi * 150 * 100 * 260e-6, rel=0.04)
    behind = round(256 / spacing[1])
    assert not body[:, behind:].any()
    both = 2 * 4 / 3 * np.pi * 90 * 60 * 45 / 1e6 + np.pi * 8**2 * 260e-6
    assert lungs.sum() * litre == pytest.approx(both, rel=0.1)
    assert not (lungs & ~body).any()


@pytest.mark.parametrize("spacing", [(2.5, 0.8, 0.8), (5.0, 2.0, 2.0), (3.0, 3.0, 3.0)])
@pytest.mark.parametrize("offset", [(0.0, 0.0, 0.0), (-20.0, 13.0, -27.0)])
def test_the_cube_is_centred_on_the_lungs(spacing, offset):
    native = _chest(spacing, offset)
    canonical = canonical_cubes(native, [64])
    expected = np.add((130.0, 150.0, 200.0), offset)
    np.testing.assert_allclose(canonical.centre_mm, expected, atol=4.0)

    # What the scan has at the cube's centre the cube has there too: the two lungs lie alike on either side.
    hu = canonical.cubes[64]
    lungs = np.argwhere(lung_mask(hu, (5.0, 5.0, 5.0)))
    np.testing.assert_allclose(lungs.mean(axis=0), [31.5] * 3, atol=1.0)


def test_millimetres_of_the_cube():
    """A bead lands where the centre says, at every size."""
    native = _chest((2.5, 1.0, 1.0), couch=False)
    native.hu[60:62, 110:112, 250:252] = 20000
    bead_mm = np.array([60.5 * 2.5, 110.5, 250.5])
    canonical = canonical_cubes(native, [64, 128, 320])
    for size, hu in canonical.cubes.items():
        assert hu.shape == (size,) * 3
        assert hu.dtype == np.int16
        voxel = 320.0 / size
        found = (np.array(np.unravel_index(hu.argmax(), hu.shape)) + 0.5) * voxel
        expected = bead_mm - canonical.centre_mm + 160.0
        assert np.abs(found - expected).max() <= max(voxel / 2, 1.0) + 0.1


def test_sizes_are_independent():
    """Each comes straight from the slices: the same whatever other sizes are asked for."""
    native = _chest((2.5, 1.6, 1.6))
    together = canonical_cubes(native, [96, 64, 32])
    for size in (96, 64, 32):
        alone = canonical_cubes(native, [size])
        np.testing.assert_array_equal(alone.cubes[size], together.cubes[size])
        assert alone.centre_mm == together.centre_mm


def test_body_outside_the_cube():
    """Of an elliptic cylinder along z, in closed form: what lies within ±80 mm on each axis."""
    native = _chest((2.5, 1.0, 1.0), couch=False)
    found = canonical_cubes(native, [32], cube_mm=160.0)
    theta = np.linspace(-np.pi / 2, np.pi / 2, 200001)
    half_width = np.minimum(150 * np.cos(theta), 80)
    depth = np.abs(100 * np.sin(theta)) <= 80
    section = np.trapezoid(2 * half_width * depth, 100 * np.sin(theta))
    expected = 1 - section * 160 / (np.pi * 150 * 100 * 260)
    assert found.body_outside_cube == pytest.approx(expected, abs=0.01)
    assert canonical_cubes(native, [32], cube_mm=600.0).body_outside_cube == pytest.approx(0.0, abs=1e-9)


def test_outside_the_scan_is_air():
    cube = canonical_cubes(_chest((2.5, 1.6, 1.6)), [64]).cubes[64]
    assert (cube[:4] == -1024).all()
    assert (cube[-4:] == -1024).all()


def test_the_fading_end_of_a_scan_is_no_lung():
    """The last slices end inside a voxel of the cube, which is then part tissue and part air."""
    for millimetres in range(5):
        native = _chest((1.0, 2.0, 2.0), (-float(millimetres), 0.0, 0.0), couch=False)
        lungs = lung_mask(canonical_cubes(native, [64]).cubes[64], (5.0, 5.0, 5.0))
        middle = lungs.sum(axis=(1, 2)).max()
        assert lungs[:15].sum(axis=(1, 2)).max() < 0.1 * middle
        assert lungs[-15:].sum(axis=(1, 2)).max() < 0.1 * middle


def test_one_lung_is_enough():
    native = _chest((3.0, 3.0, 3.0))
    native.hu[:, :, 67:][native.hu[:, :, 67:] < -800] = 30
    lungs = lung_mask(native.hu, native.spacing_mm)
    assert lungs[:, :, :67].any()
    assert not lungs[:, :, 70:].any()
    canonical_cubes(native, [32])


@pytest.mark.parametrize("what", ["water", "air", "gas"])
def test_no_lungs(what):
    native = _chest((3.0, 3.0, 3.0))
    hu = native.hu.copy()
    if what == "water":
        hu[:] = 0
    elif what == "air":
        hu[:] = -1000
    else:  # of a bowel, 100 ml in a body without lungs
        hu[:, 20:, :][hu[:, 20:, :] > -2000] = 30
        hu[40:55, 50:65, 60:76] = -1000
    with pytest.raises(Refused, match="no lungs found"):
        canonical_cubes(NativeVolume(hu, native.spacing_mm, {}), [32])
    assert not lung_mask(hu, native.spacing_mm).any()
