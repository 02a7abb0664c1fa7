"""Scans too large to be held, files that claim more than they hold, and names that no library likes."""

from __future__ import annotations

import os

import numpy as np
import pytest
import SimpleITK as sitk

from xr2ct.cohorts import dicom, images
from xr2ct.cohorts.images import read_image
from xr2ct.cohorts.reader import read_volume
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import Source
from xr2ct.cohorts.volume import NativeVolume, patient_axes


def _read(files) -> NativeVolume:
    return read_volume(Source("P-1", "s", "s", "dicom", tuple(files)))


@pytest.mark.parametrize(("most", "together"), [(24 * 50 * 64 // 2, 2), (24 * 50 * 64 // 5, 5)])
def test_of_a_scan_too_large_neighbouring_slices_are_averaged(
    tmp_path, chest, write_series, monkeypatch, most, together
):
    files = write_series(tmp_path, chest)
    monkeypatch.setattr(dicom, "MOST_VOXELS", most)
    found = _read(files)
    kept = chest.hu[: 24 // together * together].reshape(-1, together, 50, 64)
    np.testing.assert_allclose(found.hu, kept.mean(axis=1), atol=0.51)
    assert found.hu.dtype == np.int16
    assert found.spacing_mm == pytest.approx((10.0 * together, 6.0, 5.0))
    assert found.attributes["spacing_mm"] == [10.0, 6.0, 5.0]
    assert (found.attributes["slices"], found.attributes["averaged"]) == (24, [together, 1, 1])


def test_of_a_fine_matrix_pixels_are_averaged_first():
    assert dicom._averaged((400, 512, 512)) == (1, 1, 1)
    assert dicom._averaged((1600, 512, 512)) == (2, 1, 1)
    assert dicom._averaged((400, 1024, 1024)) == (1, 2, 2)
    assert dicom._averaged((1200, 2048, 2048)) == (1, 4, 4)
    assert dicom._averaged((6000, 1024, 1024)) == (4, 2, 2)


def test_a_volume_file_too_large_is_refused_before_it_is_read(tmp_path, chest, monkeypatch):
    path = tmp_path / "chest.nii"
    sitk.WriteImage(sitk.GetImageFromArray(chest.hu.astype(np.float64)), str(path))
    monkeypatch.setattr(images, "MOST_BYTES", 12 * chest.hu.size)
    read_image(path, "nifti")
    monkeypatch.setattr(images, "MOST_BYTES", 12 * chest.hu.size - 1)
    with pytest.raises(Refused, match=r"too large: 64×50×24 voxels, 64-bit float, need 0\.0 GB"):
        read_image(path, "nifti")


@pytest.mark.parametrize("order", [(0, 1, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, -1)])
def test_a_turn_undone_is_none(order, signs):
    directions = (np.eye(3)[::-1] * np.array(signs)[:, None])[list(order)]
    turn = patient_axes(directions)
    array = np.arange(24).reshape(2, 3, 4)
    np.testing.assert_array_equal(turn.undo(turn.apply(array)), array)
    assert turn.apply(array).base is array.base


def _edited(path, at, put, length=None):
    data = path.read_bytes()
    place = data.rindex(at)
    path.write_bytes(data[:place] + put + data[place + (len(put) if length is None else length) :])


DAMAGE = {
    "a length beyond the file": (
        lambda f: _edited(f, b"\xe0\x7f\x10\0OW\0\0", b"\xe0\x7f\x10\0OW\0\0\xf0\xff\xff\x7f")
    ),
    "bytes put in": (
        lambda f: f.write_bytes(
            f.read_bytes()[:-900] + b"\1\2\3\4OBzz\xff\xff\xff\x7f" + f.read_bytes()[-900:]
        )
    ),
    "no pixels": (lambda f: f.write_bytes(f.read_bytes()[: f.read_bytes().rindex(b"\xe0\x7f\x10\0")])),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_pixels_that_are_not_there_are_refused_before_memory_is_asked_for(
    tmp_path, chest, write_series, damage
):
    files = write_series(tmp_path, chest)
    DAMAGE[damage](files[5])
    with pytest.raises(Refused, match=r"005\.dcm: (pixels cannot be read|no pixels)"):
        _read(files)


def test_rows_that_the_pixels_do_not_fill(tmp_path, chest, write_series):
    """A decoder would cut the picture without a word, and all slices agree."""

    def fewer(index, data):
        data.Rows = 40

    with pytest.raises(Refused, match="6400 bytes of pixels where its header says 5120"):
        _read(write_series(tmp_path, chest, edit=fewer))


def test_zeros_after_the_pixels_are_no_damage(tmp_path, chest, write_series):
    files = write_series(tmp_path, chest)
    for path in files:
        path.write_bytes(path.read_bytes() + b"\0" * 512)
    np.testing.assert_array_equal(_read(files).hu, chest.hu)


IMPOSSIBLE = {
    "giant": ({"Rows": 65535, "Columns": 65535}, "6400 bytes of pixels where its header says 8589672450"),
    "frames": ({"NumberOfFrames": 1000000}, "NumberOfFrames is not 1"),
    "colour": ({"SamplesPerPixel": 3}, "SamplesPerPixel is not 1"),
    "bits": ({"BitsAllocated": 13}, "6400 bytes of pixels where its header says 5200"),
    "negative slope": ({"RescaleSlope": -1}, "RescaleSlope is -1"),
    "huge slope": ({"RescaleSlope": 1e9}, r"pixels from .* HU"),
    "micrometres": ({"PixelSpacing": [0.0006, 0.0005]}, "PixelSpacing is 0.0006, 0.0005"),
}


@pytest.mark.parametrize("what", IMPOSSIBLE)
def test_impossible_headers(tmp_path, chest, write_series, what):
    values, reason = IMPOSSIBLE[what]

    def spoil(index, data):
        for keyword, value in values.items():
            setattr(data, keyword, value)

    with pytest.raises(Refused, match=reason):
        _read(write_series(tmp_path, chest, edit=spoil))


def test_a_giant_compressed_slice_is_refused_by_its_header(tmp_path, chest, write_series):
    """Of compressed pixels the number of bytes says nothing."""
    files = write_series(tmp_path, chest, rle=True)
    rows = b"\x28\0\x10\0US\2\0"
    for path in files:
        path.write_bytes(path.read_bytes().replace(rows + b"\x32\0", rows + b"\xff\xff"))
    with pytest.raises(Refused, match="65535×64 pixels, expected from 16 to 4096 a side"):
        _read(files)


@pytest.mark.parametrize("step", [1e-9, 3e25])
def test_a_volume_file_of_impossible_voxels(tmp_path, chest, step):
    image = sitk.GetImageFromArray(chest.hu)
    image.SetSpacing((1.0, step, 1.0))
    sitk.WriteImage(image, str(tmp_path / "chest.mha"))
    with pytest.raises(Refused, match=r"chest\.mha: voxels of 1×.*×1 mm"):
        read_image(tmp_path / "chest.mha", "mha")


def test_a_long_line_of_a_header_does_not_reach_the_reader(tmp_path, chest):
    """ITK's NRRD reader copies it into a buffer of 1024 bytes, which ends the process."""
    path = tmp_path / "chest.nhdr"
    sitk.WriteImage(sitk.GetImageFromArray(chest.hu), str(path))
    path.write_text(path.read_text().replace("chest.raw", "x" * 5000))
    with pytest.raises(Refused, match="cannot be read as nrrd"):
        read_image(path, "nrrd")


@pytest.mark.parametrize("name", [b"a\nb.dcm", b"\xff\xfe.dcm", b"'\"; rm x.dcm", b"\xed\xa0\x80", b"%s.dcm"])
def test_names_that_no_library_likes(tmp_path, chest, write_series, name):
    """One that is no UTF-8 would end the process inside ITK."""
    files = write_series(tmp_path, chest)
    files[3] = files[3].rename(tmp_path / os.fsdecode(name))
    np.testing.assert_array_equal(_read(files).hu, chest.hu)


@pytest.mark.parametrize("suffix", [".dcm", ".nii", ".mha"])
def test_a_pipe_is_not_waited_for(tmp_path, suffix):
    path = tmp_path / f"pipe{suffix}"
    os.mkfifo(path)
    if suffix == ".dcm":
        with pytest.raises(Refused, match="not DICOM"):
            _read([path] * 16)
    else:
        with pytest.raises(Refused, match="cannot be read"):
            read_image(path, {".nii": "nifti", ".mha": "mha"}[suffix])


@pytest.mark.parametrize("dimensions", ["-1", "0", "99999999", "x"])
def test_a_number_of_dimensions_that_ends_the_process(tmp_path, chest, dimensions):
    path = tmp_path / "a.mha"
    sitk.WriteImage(sitk.GetImageFromArray(chest.hu), str(path))
    path.write_bytes(path.read_bytes().replace(b"NDims = 3", f"NDims = {dimensions}".encode()))
    with pytest.raises(Refused, match="cannot be read as mha"):
        read_image(path, "mha")
