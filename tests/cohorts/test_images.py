"""NIfTI, MHA and NRRD: the same volume by any of them, and what is no CT refused."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from xr2ct.cohorts.reader import read_volume, read_volume_file
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import volume_source
from xr2ct.cohorts.volume import NativeVolume
from xr2ct.errors import UserError

NAMES = ["ct.nii", "ct.nii.gz", "ct.mha", "ct.mhd", "ct.nrrd"]
FLIPS = list(itertools.product([1, -1], repeat=3))


def _write(path: Path, volume: NativeVolume, order=(0, 1, 2), signs=(1, 1, 1), dtype=np.int16) -> Path:
    """The volume stored with its axes in another order and direction, the direction matrix saying so."""
    stored = np.transpose(volume.hu, order)[:: signs[0], :: signs[1], :: signs[2]]
    image = sitk.GetImageFromArray(np.ascontiguousarray(stored).astype(dtype))
    image.SetSpacing([volume.spacing_mm[a] for a in order][::-1])
    unit = np.eye(3)[::-1]  # of z, y, x in LPS
    columns = [unit[a] * sign for a, sign in zip(order, signs, strict=True)][::-1]
    image.SetDirection(np.stack(columns, axis=1).ravel().tolist())
    image.SetOrigin([-12.0, 30.0, 400.0])
    sitk.WriteImage(image, str(path))
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_same_volume_by_every_format(tmp_path, chest, name):
    for signs in FLIPS:
        native = read_volume(volume_source(_write(tmp_path / name, chest, signs=signs)))
        np.testing.assert_array_equal(native.hu, chest.hu)
        assert native.hu.dtype == np.int16
        assert native.spacing_mm == pytest.approx(chest.spacing_mm)


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("name", ["ct.nii.gz", "ct.nrrd"])
def test_coronal_and_sagittal_storage(tmp_path, chest, name, order):
    native = read_volume_file(_write(tmp_path / name, chest, order, (1, -1, -1)))
    np.testing.assert_array_equal(native.hu, chest.hu)
    assert native.spacing_mm == pytest.approx(chest.spacing_mm)


def test_axes_are_named_by_the_file_and_not_by_the_array(tmp_path):
    """One bright voxel by its LPS position alone: patient's left, front, head."""
    image = sitk.Image(20, 20, 20, sitk.sitkInt16) - 1000
    image.SetDirection([-1, 0, 0, 0, 0, 1, 0, -1, 0])
    image[2, 1, 17] = 700
    sitk.WriteImage(image, str(tmp_path / "bead.nii"))
    x, y, z = image.TransformIndexToPhysicalPoint((2, 1, 17))
    corner = np.min([image.TransformIndexToPhysicalPoint(i) for i in itertools.product((0, 19), repeat=3)], 0)

    found = np.argwhere(read_volume_file(tmp_path / "bead.nii").hu == 700)

    np.testing.assert_array_equal(found, [np.array([z, y, x]) - corner[::-1]])


def test_a_small_turn_is_taken_and_a_larger_one_is_not(tmp_path, chest):
    for degrees, taken in [(1.5, True), (4.0, False)]:
        path = _write(tmp_path / "ct.mha", chest)
        image = sitk.ReadImage(str(path))
        cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        image.SetDirection([cos, -sin, 0, sin, cos, 0, 0, 0, 1])
        sitk.WriteImage(image, str(path))
        if taken:
            np.testing.assert_array_equal(read_volume_file(path).hu, chest.hu)
        else:
            with pytest.raises(UserError, match=r"ct\.mha: oblique: its axes are 4\.0° from the patient's"):
                read_volume_file(path)


def test_float_hu_keeps_its_fractions(tmp_path, chest):
    fine = NativeVolume(chest.hu - np.float32(0.25), chest.spacing_mm, {})
    native = read_volume_file(_write(tmp_path / "ct.mha", fine, dtype=np.float32))
    assert native.hu.dtype == np.float32
    np.testing.assert_array_equal(native.hu, fine.hu)


def test_padding_below_air_is_air(tmp_path, chest):
    hu = chest.hu.copy()
    hu[:, :3] = -3024
    native = read_volume_file(_write(tmp_path / "ct.nrrd", NativeVolume(hu, chest.spacing_mm, {})))
    assert (native.hu[:, :3] == -1024).all()
    np.testing.assert_array_equal(native.hu[:, 3:], chest.hu[:, 3:])


@pytest.mark.parametrize(
    ("change", "dtype", "reason"),
    [
        (lambda hu: (hu + 1024.0) / 2500, np.float32, "are not HU"),
        (lambda hu: hu > -500, np.uint8, "values from 0 to 1 are not HU"),
        (lambda hu: hu + 1024, np.uint16, "are not HU"),
        (lambda hu: 2 * (hu + 1024), np.int16, "are not HU"),
        (lambda hu: np.where(hu > 400, np.nan, hu), np.float32, "not finite"),
        (lambda hu: hu[:15], np.int16, "too few slices: 15"),
        (
            lambda hu: np.stack([hu, hu]),
            np.int16,
            "expected one 3D volume of single values, found 64×50×24×2",
        ),
    ],
    ids=["unit interval", "label map", "unsigned", "raw counts", "NaN", "few slices", "4D"],
)
def test_what_is_no_ct_is_refused(tmp_path, chest, change, dtype, reason):
    path = tmp_path / "ct.nrrd"
    sitk.WriteImage(sitk.GetImageFromArray(change(chest.hu).astype(dtype), isVector=False), str(path))
    with pytest.raises(Refused, match=reason):
        read_volume(volume_source(path))


def test_water_alone_is_ct(tmp_path):
    """`project` is tried on such: no air at all, all values the same."""
    for dtype in (np.int16, np.float32):
        sitk.WriteImage(sitk.GetImageFromArray(np.zeros((20, 8, 8), dtype)), str(tmp_path / "water.mha"))
        assert (read_volume_file(tmp_path / "water.mha").hu == 0).all()


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_damaged_files(tmp_path, chest, name, compressed, capfd):
    path = _write(tmp_path / name, chest)
    if compressed and name in ("ct.mha", "ct.nrrd"):
        sitk.WriteImage(sitk.ReadImage(str(path)), str(path), useCompression=True)
    data = path.with_suffix(".raw") if name.endswith("mhd") else path
    data.write_bytes(data.read_bytes()[: data.stat().st_size // 2])
    with pytest.raises(UserError, match=r"cannot be read as (nifti|mha|nrrd)"):
        read_volume_file(path)
    path.write_text("rubbish")
    with pytest.raises(UserError, match="cannot be read"):
        read_volume_file(path)
