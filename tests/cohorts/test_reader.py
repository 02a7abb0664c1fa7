"""Scans from DICOM: values and axes exact, faults refused with their reason, no identifier kept."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from xr2ct.cohorts.reader import read_volume, read_volume_file
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import Source, find_sources
from xr2ct.cohorts.volume import NativeVolume
from xr2ct.errors import UserError


def _read(files) -> NativeVolume:
    return read_volume(Source("P-1", "s", "s", "dicom", tuple(files)))


def _same(found: NativeVolume, expected: NativeVolume) -> None:
    assert found.hu.dtype == np.int16
    np.testing.assert_array_equal(found.hu, expected.hu)
    assert found.spacing_mm == pytest.approx(expected.spacing_mm)


@pytest.mark.parametrize("options", [{}, {"bare": True}, {"rle": True}], ids=["explicit", "implicit", "RLE"])
def test_values_and_axes(tmp_path, chest, write_series, options):
    _same(_read(write_series(tmp_path, chest, **options)), chest)


def test_slices_are_ordered_by_position(tmp_path, chest, write_series):
    """Names and instance numbers run the other way; SpacingBetweenSlices is negative and wrong."""

    def backwards(index, data):
        data.InstanceNumber = 100 - index
        data.SpacingBetweenSlices = -3.0

    names = [f"{100 - i:03d}" for i in range(24)]
    files = write_series(tmp_path, chest, edit=backwards, names=names)
    _same(_read(sorted(files)), chest)


@pytest.mark.parametrize("signs", [(1, 1), (-1, 1), (1, -1), (-1, -1)])
@pytest.mark.parametrize("stack", ["axial", "coronal", "sagittal"])
def test_any_orientation_along_the_axes(tmp_path, chest, write_series, stack, signs):
    """The same patient stored row by row along other axes, flipped, and stacked the other way round."""
    axes = {"axial": (0, 1, 2), "coronal": (1, 0, 2), "sagittal": (2, 0, 1)}[stack]  # slice, row, column
    spacing = [chest.spacing_mm[a] for a in axes]
    unit = np.eye(3)[::-1]  # of z, y, x in LPS
    rows, columns = unit[axes[1]] * signs[0], unit[axes[2]] * signs[1]
    stored = np.transpose(chest.hu, axes)[:, :: signs[0], :: signs[1]]

    def orient(index, data):
        data.ImageOrientationPatient = [*columns, *rows]
        data.ImagePositionPatient = list(unit[axes[0]] * spacing[0] * index)
        data.PixelSpacing = spacing[1:]

    volume = NativeVolume(np.ascontiguousarray(stored), chest.spacing_mm, {})
    _same(_read(write_series(tmp_path, volume, edit=orient)), chest)


def test_rescale_belongs_to_the_slice(tmp_path, chest, write_series):
    """PET-like scanners and some CT change slope and intercept from slice to slice."""

    def rescale(index, data):
        if index % 3 == 1:
            data.RescaleSlope, data.RescaleIntercept = 2, -3000
            data.PixelData = ((chest.hu[index].astype(np.int32) + 3000) // 2).astype("<i2").tobytes()
        if index % 3 == 2:
            data.RescaleSlope, data.RescaleIntercept = 0.5, -1024.5
            data.PixelData = (2 * (chest.hu[index].astype(np.int32) + 1024)).astype("<i2").tobytes()

    found = _read(write_series(tmp_path, chest, edit=rescale))
    assert np.abs(found.hu[0::3] - chest.hu[0::3]).max() == 0
    assert np.abs(found.hu[1::3] - chest.hu[1::3]).max() == 0
    assert np.abs(found.hu[2::3].astype(int) - chest.hu[2::3]).max() <= 1  # half a HU, rounded


@pytest.mark.parametrize(
    ("padding", "vr", "signed", "limit", "stored"),
    [
        (63536, "US", True, None, -2000),
        (-2000, "SS", True, None, -2000),
        (63536, "US", False, None, 63536),
        (-2000, "SS", False, None, 63536),
        (-2000, "SS", True, -1990, -1995),
        (3000, "US", True, None, 3000),
        (None, "SS", True, None, -3024),
    ],
)
def test_padding_is_air(tmp_path, chest, write_series, padding, vr, signed, limit, stored):
    """Outside the scanner's circle, whatever the sign that the header claims for the value."""
    y, x = np.meshgrid(np.linspace(-1, 1, 50), np.linspace(-1, 1, 64), indexing="ij")
    circle = x**2 + y**2 > 1.1

    def pad(index, data):
        pixels = np.where(circle, stored, chest.hu[index].astype(np.int32) + 1024)
        data.PixelData = pixels.astype("<i2" if signed else "<u2").tobytes()
        data.PixelRepresentation = int(signed)
        if padding is not None:
            data.add_new("PixelPaddingValue", vr, padding)
        if limit is not None:
            data.add_new("PixelPaddingRangeLimit", vr, limit)

    _same(
        _read(write_series(tmp_path, chest, edit=pad)),
        NativeVolume(np.where(circle, -1024, chest.hu).astype(np.int16), chest.spacing_mm, {}),
    )


def test_a_wrong_padding_value_drills_no_holes(tmp_path, chest, write_series):
    """Padding declared as 1064, which is the soft tissue's 40 HU."""
    files = write_series(tmp_path, chest, edit=lambda _, data: data.add_new("PixelPaddingValue", "SS", 1064))
    inner = (slice(None), slice(4, 40), slice(4, 60))
    np.testing.assert_array_equal(_read(files).hu[inner], chest.hu[inner])


def _missing(index, data):
    if index == 11:
        data.ImagePositionPatient = [-150, -130, -450]


def _shifted_from(first: int, millimetres: float):
    def edit(index, data):
        if index >= first:
            data.ImagePositionPatient = [-150, -130, data.ImagePositionPatient[2] + millimetres]

    return edit


def _set(keyword: str, value, only: int | None = None):
    def edit(index, data):
        if only is None or index == only:
            setattr(data, keyword, value)

    return edit


def _delete(keyword: str, only: int):
    def edit(index, data):
        if index == only:
            delattr(data, keyword)

    return edit


def _sheared(index, data):
    data.ImagePositionPatient = [-150, -130 + 10 * index * math.tan(math.radians(7)), 10 * index]


def _leaning_slices(index, data):
    t = math.radians(18.5)
    data.ImageOrientationPatient = [1, 0, 0, 0, round(math.cos(t), 7), round(-math.sin(t), 7)]


def _turned(index, data):
    """A patient turned by 10° about the long axis: regular, but oblique."""
    t = math.radians(10)
    data.ImageOrientationPatient = [math.cos(t), math.sin(t), 0, -math.sin(t), math.cos(t), 0]


def _smaller(index, data):
    if index == 5:
        data.Rows = 49
        data.PixelData = data.PixelData[: 49 * 64 * 2]


FAULTS = {
    "missing": (_shifted_from(12, 10.0), r"missing slices: 1 between the others \(a gap of 20.00 mm"),
    "missing two": (_shifted_from(3, 20.0), "missing slices: 2"),
    "duplicate": (_set("ImagePositionPatient", [-150, -130, -580], only=11), "duplicated slices: 1 of 24"),
    "irregular": (_shifted_from(12, 4.0), "irregular gaps between slices: 10.00 to 14.00 mm"),
    "sheared": (_sheared, "gantry tilt of 7.0°"),
    "leaning": (_leaning_slices, "gantry tilt of 18.5°"),
    "tilt tag": (_set("GantryDetectorTilt", -12.0), "gantry tilt of 12.0°"),
    "aside": (_set("ImagePositionPatient", [-120, -130, -590], only=11), "up to 30.0 mm aside"),
    "oblique": (_turned, "oblique: its axes are 10.0°"),
    "shape": (_smaller, "slices differ in one series: .* pixels"),
    "spacing": (_set("PixelSpacing", [6.0, 5.5], only=3), "slices differ in one series: pixels of"),
    "orientation": (_set("ImageOrientationPatient", [1, 0, 0, 0, 0, -1], only=3), "differ.*orientations"),
    "no unit vectors": (_set("ImageOrientationPatient", [1, 0, 0, 1, 0, 0]), "perpendicular unit vectors"),
    "slope 0": (_set("RescaleSlope", 0, only=3), "003.dcm: RescaleSlope is 0"),
    "no intercept": (_delete("RescaleIntercept", only=3), "003.dcm: its header has no RescaleIntercept"),
    "no position": (_delete("ImagePositionPatient", only=3), "has no ImagePositionPatient"),
    "NaN spacing": (_set("PixelSpacing", ["NaN", "NaN"]), "PixelSpacing is not 2 finite numbers"),
    "zero spacing": (_set("PixelSpacing", [0, 0]), "PixelSpacing is 0, 0"),
}


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_refused_with_their_reason(tmp_path, chest, write_series, fault):
    edit, reason = FAULTS[fault]
    with pytest.raises(Refused, match=reason):
        _read(write_series(tmp_path, chest, edit=edit))


def test_positions_rounded_to_a_tenth_are_regular(tmp_path, chest, write_series):
    """0.625 mm apart, written 0.6, 1.2, 1.9, 2.5 …"""

    def rounded(index, data):
        data.ImagePositionPatient = [0, 0, round(0.625 * index, 1)]

    native = _read(write_series(tmp_path, chest, edit=rounded))
    assert native.spacing_mm[0] == pytest.approx(0.625, abs=0.005)


def test_too_few_slices(tmp_path, chest, write_series):
    files = write_series(tmp_path, chest)
    assert _read(files[:16]).hu.shape == (16, 50, 64)
    with pytest.raises(Refused, match="too few slices: 15, at least 16"):
        _read(files[:15])


@pytest.mark.parametrize("part", [0.3, 0.999])
@pytest.mark.parametrize("rle", [False, True], ids=["uncompressed", "RLE"])
def test_a_truncated_file(tmp_path, chest, write_series, part, rle):
    files = write_series(tmp_path, chest, rle=rle)
    whole = files[7].read_bytes()
    pixels = whole.index(b"\xe0\x7f\x10\x00")
    files[7].write_bytes(whole[: pixels + int(part * (len(whole) - pixels - 8))])
    (source,), _ = find_sources(tmp_path)
    with pytest.raises(Refused, match=r"007\.dcm: pixels cannot be read"):
        read_volume(source)


def test_attributes_hold_no_identifier(tmp_path, chest, write_series):
    attributes = _read(write_series(tmp_path, chest)).attributes
    assert attributes == {
        "format": "dicom",
        "slices": 24,
        "spacing_mm": [10.0, 6.0, 5.0],
        "thickness_mm": 10.0,
        "kernel": "B30f",
        "contrast": True,
        "kvp": None,
        "manufacturer": "unrecognised",
    }
    assert "Planted" not in json.dumps(attributes)


def test_one_ct_from_a_folder(tmp_path, chest, write_series):
    write_series(tmp_path / "one", chest)
    _same(read_volume_file(tmp_path / "one"), chest)

    write_series(tmp_path / "two", chest, patient="A", series="1.2.5")
    write_series(tmp_path / "two" / "more", chest, patient="B", series="1.2.6")
    with pytest.raises(
        UserError, match=r"expected one usable series, found 2: A \(24 files\), B \(24 files\)"
    ):
        read_volume_file(tmp_path / "two")

    (tmp_path / "none").mkdir()
    with pytest.raises(UserError, match="no usable series: no image among 0 files"):
        read_volume_file(tmp_path / "none")
    with pytest.raises(UserError, match="no such file or folder"):
        read_volume_file(tmp_path / "nowhere")
    with pytest.raises(UserError, match=r"expected one of \.nii, .* or the folder of a DICOM series"):
        read_volume_file(tmp_path / "one" / "003.dcm")

    write_series(tmp_path / "bad", chest, edit=_sheared)
    with pytest.raises(UserError, match="bad: gantry tilt"):
        read_volume_file(tmp_path / "bad")
