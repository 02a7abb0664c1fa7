"""Real scans: six compressions of one slice, a whole chest, a tilted head, a downsampled chest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pydicom
import pytest

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.lungs import body_mask, lung_mask
from xr2ct.cohorts.reader import read_volume, read_volume_file
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import find_sources
from xr2ct.cohorts.volume import NativeVolume


@pytest.fixture(scope="module")
def lidc(real_data: Path) -> NativeVolume:
    (source,), refusals = find_sources(real_data / "chest" / "LIDC-IDRI-0001")
    assert (source.patient, len(source.files), refusals) == ("LIDC-IDRI-0001", 133, [])
    return read_volume(source)


def _stacked(slice_file: Path, folder: Path) -> np.ndarray:
    """One slice sixteen times over, its compressed pixels untouched, read as a series."""
    folder.mkdir()
    data = pydicom.dcmread(slice_file)
    for index in range(16):
        data.ImagePositionPatient = [0, 0, 5.0 * index]
        data.save_as(folder / f"{index}.dcm")
    (source,), _ = find_sources(folder)
    hu = read_volume(source).hu
    assert (hu == hu[0]).all()
    return hu[0].astype(int)


def test_six_compressions_read_alike(real_data, tmp_path):
    """Lossless ones are identical; JPEG-LS errs by the 4 it was set to, JPEG 2000 by what 69:1 costs."""
    folder = real_data / "compressed"
    plain = _stacked(folder / "CT1_UNC.dcm", tmp_path / "UNC")
    assert (plain.min(), plain.max()) == (-1024, 1254)
    for name in ("JLSL", "JPLL", "J2KR", "RLE"):
        np.testing.assert_array_equal(_stacked(folder / f"CT1_{name}.dcm", tmp_path / name), plain)
    near = _stacked(folder / "CT1_JLSN.dcm", tmp_path / "JLSN") - plain
    assert np.abs(near).max() == 4
    lossy = _stacked(folder / "CT1_J2KI.dcm", tmp_path / "J2KI") - plain
    assert abs(lossy.mean()) < 1
    assert np.sqrt((lossy**2).mean()) < 40  # OpenJPEG itself decodes the very same values


def test_a_tilted_head_is_refused(real_data):
    (source,), refusals = find_sources(real_data / "tilted")
    assert refusals == []
    with pytest.raises(Refused, match=r"gantry tilt of 18\.5°"):
        read_volume(source)


def test_a_radiograph_is_no_ct(real_data):
    sources, (refusal,) = find_sources(real_data / "xray")
    assert sources == []
    assert refusal.reason == "no CT series: modality CR (1 files)"


def test_a_whole_chest(lidc):
    assert lidc.hu.shape == (133, 512, 512)
    assert lidc.spacing_mm == pytest.approx((2.5, 0.703125, 0.703125))
    assert (lidc.hu.min(), lidc.hu.max()) == (-1024, 3071)
    assert lidc.attributes["kernel"] == "STANDARD"
    assert lidc.attributes["contrast"] is True


@pytest.mark.parametrize("name", ["LIDC-IDRI-0001", "ct-64"])
def test_a_chest_lies_as_the_conventions_say(real_data, lidc, name):
    """Each of these fails where its axis is turned round."""
    native = lidc if name == "LIDC-IDRI-0001" else read_volume_file(real_data / "chest" / "ct-64")
    hu = canonical_cubes(native, [64]).cubes[64]
    lungs, body = lung_mask(hu, (5.0, 5.0, 5.0)), body_mask(hu, (5.0, 5.0, 5.0))
    z, y, x = np.nonzero(lungs)
    # The lungs' lowest parts lie far back, behind the diaphragm; their apices in the middle.
    assert y[z < z.min() + 8].mean() > y.mean() + 4
    assert y[z > z.max() - 8].mean() < y.mean() + 2
    assert (hu[:, 42:, 24:40] > 300).sum() > 1.5 * (hu[:, :22, 24:40] > 300).sum(), "the spine lies behind"
    heart = np.nonzero((body & (hu > -100))[16:30, 12:36, 14:50])[2]
    assert heart.mean() + 14 > 31.5 + 0.5, "the heart lies to the left"
    assert (x > 31.5).mean() < 0.48, "and leaves the left lung less room"


def test_the_body_is_found_without_the_table(lidc):
    body = body_mask(lidc.hu, lidc.spacing_mm)
    litres = body.sum() * np.prod(lidc.spacing_mm) / 1e6
    assert 17 < litres < 21
    # The table's top lies behind row 445 on every slice; the back ends before.
    assert not body[:, 445:].any()
    assert (lidc.hu[:, 445:] > -300).any(axis=(1, 2)).all()
    lungs = lung_mask(lidc.hu, lidc.spacing_mm)
    assert 3.2 < lungs.sum() * np.prod(lidc.spacing_mm) / 1e6 < 4.2
    assert not (lungs & ~body).any()


def test_the_cube_of_a_whole_chest(lidc):
    canonical = canonical_cubes(lidc, [64])
    assert canonical.centre_mm == pytest.approx((191, 184, 177), abs=4)
    assert canonical.body_outside_cube == pytest.approx(0.105, abs=0.02)


def test_a_downsampled_chest(real_data):
    native = read_volume_file(real_data / "chest" / "ct-64" / "ct-64.nrrd")
    assert native.hu.shape == (79, 64, 64)
    assert native.spacing_mm == pytest.approx((3.98734, 4.171872, 4.171872), abs=1e-4)
    canonical = canonical_cubes(native, [64])
    lungs = lung_mask(canonical.cubes[64], (5.0, 5.0, 5.0))
    assert 3.5 < lungs.sum() * 0.125 / 1000 < 5.5
    assert canonical.body_outside_cube < 0.1
