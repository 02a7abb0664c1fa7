"""Where a scan ends on the lungs, and that what lies below them is none."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.coverage import lung_coverage, lung_coverage_of
from xr2ct.cohorts.phantom import synthetic_chest
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import Source
from xr2ct.cohorts.volume import NativeVolume


@pytest.fixture(scope="module")
def phantom() -> NativeVolume:
    return synthetic_chest(3, "covid-19-ny-sbu")


def _cut(native: NativeVolume, low: int, high: int) -> NativeVolume:
    return NativeVolume(native.hu[low:high], native.spacing_mm, {})


def _chest_abdomen_pelvis(chest: NativeVolume, length_mm: float, gas_mm: float) -> tuple[NativeVolume, float]:
    """The chest on top of its own lowest slices over and over, with bowels full of gas; where it begins."""
    dz, dy, dx = chest.spacing_mm
    slices = round(length_mm / dz) - len(chest.hu)
    below = np.concatenate([chest.hu[:6], chest.hu[5::-1]] * (slices // 12 + 1))[:slices].copy()
    z, y, x = np.ogrid[:slices, : chest.hu.shape[1], : chest.hu.shape[2]]
    middle_y, middle_x = (float(np.mean(n)) for n in np.nonzero(below[0] > -200))
    draws = np.random.default_rng(5)
    for _ in range(6):
        at_z, at_y, at_x = draws.uniform((20, -40, -70), (slices * dz - 60, 10, 70))
        radius = (
            ((z * dz - at_z) / (2 * gas_mm)) ** 2
            + (((y - middle_y) * dy - at_y) / gas_mm) ** 2
            + (((x - middle_x) * dx - at_x) / gas_mm) ** 2
        )
        below[radius < 1] = -1000
    return NativeVolume(np.concatenate([below, chest.hu]), chest.spacing_mm, {}), slices * dz


@pytest.mark.parametrize("gas_mm", [15.0, 35.0, 50.0])
def test_chest_abdomen_pelvis_centres_on_the_lungs(phantom, gas_mm):
    whole, below_mm = _chest_abdomen_pelvis(phantom, 700.0, gas_mm)
    alone = canonical_cubes(phantom, [16])
    found = canonical_cubes(whole, [16], min_lung_coverage=0.75)
    np.testing.assert_allclose(found.centre_mm, np.add(alone.centre_mm, (below_mm, 0, 0)), atol=3.0)
    assert lung_coverage_of(whole) == pytest.approx(lung_coverage_of(phantom), abs=0.01)


def test_an_abdomen_with_gas_holds_no_chest(phantom):
    """Gas of more volume than the bases of the lungs above it."""
    whole, below_mm = _chest_abdomen_pelvis(phantom, 700.0, 45.0)
    chest_from = round(below_mm / phantom.spacing_mm[0])
    with pytest.raises(Refused, match="no lungs found"):
        canonical_cubes(_cut(whole, 0, chest_from), [16])
    with pytest.raises(Refused, match=r"no lungs found|cuts the lungs"):
        canonical_cubes(_cut(whole, 0, chest_from + 22), [16], min_lung_coverage=0.75)


def test_a_whole_chest_and_one_cut_at_either_end(phantom):
    assert lung_coverage_of(phantom) > 0.95
    slices = len(phantom.hu)
    with pytest.raises(Refused, match=r"the scan cuts the lungs: \d+% of their .* towards the feet"):
        canonical_cubes(_cut(phantom, 24, slices), [16], min_lung_coverage=0.75)
    with pytest.raises(Refused, match=r"the scan cuts the lungs: \d+% of their .* towards the head"):
        canonical_cubes(_cut(phantom, 0, slices - 24), [16], min_lung_coverage=0.75)
    canonical_cubes(_cut(phantom, 24, slices), [16])  # unless nothing is asked for


def test_coverage_falls_as_more_is_cut(phantom):
    found = [lung_coverage_of(_cut(phantom, low, len(phantom.hu))) for low in range(8, 40, 4)]
    assert all(a >= b - 0.02 for a, b in itertools.pairwise(found))
    assert found[0] > 0.9
    assert found[-1] < 0.2


@pytest.mark.parametrize("slices", [90, 91, 92, 93])
def test_a_last_block_that_is_part_air_hides_no_cut(slices):
    """1.2 mm slices are averaged by threes; what is left over at the end is not a whole block."""
    z, y, x = np.ogrid[:slices, :60, :80]
    hu = np.where(((y - 30) / 24) ** 2 + ((x - 40) / 34) ** 2 + 0 * z < 1, 30, -1000).astype(np.int16)
    for side in (-15, 15):
        hu[np.broadcast_to(((y - 30) / 15) ** 2 + ((x - 40 - side) / 10) ** 2 < 1, hu.shape)] = -850
    hu[::4, 20:40:3, 20:60:3] = 0  # vessels
    assert lung_coverage_of(NativeVolume(hu, (1.2, 5.0, 5.0), {})) < 0.1


def test_from_a_few_slices_of_the_files(tmp_path, chest, write_series):
    files = write_series(tmp_path / "whole", chest)
    source = Source("P", "1", "1", "dicom", tuple(files))
    assert lung_coverage(source) == pytest.approx(lung_coverage_of(chest))
    fine = NativeVolume(chest.hu.repeat(4, axis=0), (2.5, *chest.spacing_mm[1:]), {})
    files = write_series(tmp_path / "fine", fine)
    source = Source("P", "1", "1", "dicom", tuple(files))
    assert lung_coverage(source) == pytest.approx(lung_coverage_of(fine), abs=0.02)


def test_none_without_lungs_or_without_a_readable_scan(tmp_path, chest, write_series):
    water = NativeVolume(np.zeros_like(chest.hu), chest.spacing_mm, {})
    files = write_series(tmp_path / "water", water)
    assert lung_coverage(Source("P", "1", "1", "dicom", tuple(files))) is None
    files = write_series(tmp_path / "broken", chest)
    files[3].write_bytes(b"")
    assert lung_coverage(Source("P", "1", "1", "dicom", tuple(files))) is None
    assert lung_coverage(Source("P", "1", "1", "dicom", tuple(files[:2]))) is None
