"""DX and CR pictures: the values that were stored, and of the header nothing but numbers and terms."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)

from xr2ct.cohorts.radiographs import MAX_PIXELS, Radiograph, read_radiographs
from xr2ct.cohorts.refused import Refused
from xr2ct.cohorts.series import Source

TOKENS = ("Planted", "ACC-4711", "19501231", "20200229", "20200301", "Somewhere", "1.2.3.9")
RAMP = (np.arange(96 * 80).reshape(96, 80) % 4096).astype("<u2")


def _dataset(pixels: np.ndarray = RAMP, **values: Any) -> Dataset:
    data = Dataset()
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = values.pop("syntax", ExplicitVRLittleEndian)
    all_values = {
        "SOPClassUID": DigitalXRayImageStorageForPresentation,
        "SOPInstanceUID": "1.2.3.9.1",
        "Modality": "DX",
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "PresentationIntentType": "FOR PRESENTATION",
        "PatientID": "Planted-1",
        "PatientName": "Planted^Name",
        "PatientBirthDate": "19501231",
        "AccessionNumber": "ACC-4711",
        "StudyDate": "20200229",
        "AcquisitionDate": "20200301",
        "InstitutionName": "Somewhere",
        "SeriesDescription": "Planted chest Somewhere",
        "StudyInstanceUID": "1.2.3.9.2",
        "SeriesInstanceUID": "1.2.3.9.3",
        "Manufacturer": "Planted Somewhere",
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[-2],
        "Columns": pixels.shape[-1],
        "BitsAllocated": pixels.dtype.itemsize * 8,
        "BitsStored": pixels.dtype.itemsize * 8,
        "HighBit": pixels.dtype.itemsize * 8 - 1,
        "PixelRepresentation": int(pixels.dtype.kind == "i"),
        "PixelData": pixels.tobytes(),
    }
    for keyword, value in (all_values | values).items():
        if value is not None:
            setattr(data, keyword, value)
    data["PixelData"].VR = "OW"
    return data


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    def _write(data: Dataset, name: str = "x.dcm") -> Path:
        data.save_as(tmp_path / name, enforce_file_format=True)
        return tmp_path / name

    return _write


def _read(*files: Path) -> list[Radiograph]:
    return read_radiographs(Source("P-1", "1.2", "1.2.3", "radiograph", files))


def _one(data: Dataset, write: Callable[..., Path]) -> Radiograph:
    (radiograph,) = _read(write(data))
    return radiograph


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        RLELossless,
    ],
)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_stored_values_come_back_in_every_syntax(write, syntax, photometric):
    """Neither the rescale nor the photometric interpretation touches them."""
    data = _dataset(
        PhotometricInterpretation=photometric,
        BitsStored=12,
        HighBit=11,
        RescaleSlope="-2.5",
        RescaleIntercept="7",
        RescaleType="US",
        WindowCenter=["100", "2000"],
        WindowWidth=["50", "4000"],
    )
    if syntax == RLELossless:
        data.compress(syntax, generate_instance_uid=False)
    elif syntax == ExplicitVRBigEndian:
        data.PixelData = RAMP.astype(">u2").tobytes()
    data.file_meta.TransferSyntaxUID = syntax
    radiograph = _one(data, write)
    np.testing.assert_array_equal(radiograph.pixels, RAMP)
    assert radiograph.pixels.dtype == np.uint16
    assert radiograph.attributes["photometric"] == photometric
    assert radiograph.attributes["rescale"] == {"slope": -2.5, "intercept": 7.0, "type": "US"}
    assert radiograph.attributes["windows"] == [
        {"centre": 100.0, "width": 50.0},
        {"centre": 2000.0, "width": 4000.0},
    ]


@pytest.mark.parametrize("dtype", ["<i2", "u1", "i1"])
def test_signed_and_8_bit_pixels(write, dtype):
    pixels = (RAMP.astype(int) % 200 - 100 * (np.dtype(dtype).kind == "i")).astype(dtype)
    radiograph = _one(_dataset(pixels), write)
    np.testing.assert_array_equal(radiograph.pixels, pixels)
    assert radiograph.pixels.dtype == (np.int16 if pixels.dtype.kind == "i" else np.uint16)


def test_an_overlay_in_the_unused_bits_is_no_part_of_the_picture(write):
    data = _dataset(RAMP | np.uint16(0x8000), BitsStored=12, HighBit=11)
    np.testing.assert_array_equal(_one(data, write).pixels, RAMP)


def test_frames_are_pictures_of_their_own(write):
    frames = np.stack([RAMP, RAMP[::-1], RAMP // 2])
    radiographs = _read(write(_dataset(frames, NumberOfFrames=3)))
    np.testing.assert_array_equal([r.pixels for r in radiographs], frames)
    assert [r.attributes["frame"] for r in radiographs] == [1, 2, 3]


def test_a_copy_is_taken_once_whatever_the_names(write):
    first = write(_dataset(), "z.dcm")
    second = write(_dataset(RAMP // 2, SOPInstanceUID="1.2.3.9.5", ViewPosition="LL"), "a.dcm")
    copy = write(_dataset(), "b.dcm")
    radiographs = _read(second, copy, first)
    assert [r.attributes["view"] for r in radiographs] == ["PA", "LL"]


def test_nothing_but_numbers_and_terms_is_kept(write):
    data = _dataset(
        ViewPosition="Planted",
        Grid=["FOCUSED", "Planted"],
        DetectorType="Planted",
        RescaleType="Planted",
        RescaleSlope="1",
        RescaleIntercept="0",
        VOILUTFunction="Planted",
        PatientOrientation=["Planted", "F"],
        PixelIntensityRelationship="Planted",
        WindowCenterWidthExplanation="Planted",
        WindowCenter="1",
        WindowWidth="2",
        VOILUTSequence=Sequence([_lut([0, 5, 9], 0, 12, LUTExplanation="Planted")]),
        KVP="120",
    )
    radiograph = _one(data, write)
    told = json.dumps(radiograph.attributes)
    assert not [token for token in TOKENS if token in told]
    assert radiograph.date == "20200301"
    assert radiograph.attributes["kvp"] == 120
    assert radiograph.attributes["grid"] == ["FOCUSED"]
    assert radiograph.attributes["view"] == ""
    assert radiograph.attributes["manufacturer"] == "unrecognised"


def _lut(data: list[int], first: int, bits: int, **more: str) -> Dataset:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data) % 65536, first, bits])
    item.add_new("LUTData", "US", data)
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return item


def test_lookup_tables_are_kept_whole(write):
    """65536 entries are announced as 0, and what the first maps is signed where the pixels are."""
    long = list(range(65535, -1, -1))
    data = _dataset(
        RAMP.astype("<i2"),
        ModalityLUTSequence=Sequence([_lut(long, 0x8000, 16, ModalityLUTType="OD")]),
        VOILUTSequence=Sequence([_lut([3, 2, 1, 0], 40, 12), _lut([0, 1], 0, 8)]),
        PresentationLUTShape="INVERSE",
        VOILUTFunction="SIGMOID",
    )
    kept = _one(data, write).attributes
    assert kept["modality_lut"] == {"first": -32768, "bits": 16, "type": "OD", "data": long}
    assert [lut["data"] for lut in kept["voi_luts"]] == [[3, 2, 1, 0], [0, 1]]
    assert (kept["voi_luts"][0]["first"], kept["voi_luts"][0]["bits"]) == (40, 12)
    assert (kept["presentation_lut"], kept["voi_function"]) == ("INVERSE", "SIGMOID")


def test_a_later_reader_shows_what_pydicom_shows(write):
    """From pixels and attributes alone: LUT, window and polarity, against pydicom's own chain."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    data = _dataset(
        RescaleSlope="0.5",
        RescaleIntercept="-20",
        RescaleType="US",
        WindowCenter="700",
        WindowWidth="900",
        VOILUTFunction="LINEAR",
        BitsStored=12,
        HighBit=11,
    )
    radiograph = _one(data, write)
    (window,), rescale = radiograph.attributes["windows"], radiograph.attributes["rescale"]
    value = radiograph.pixels * rescale["slope"] + rescale["intercept"]
    ours = np.clip((value - (window["centre"] - 0.5)) / (window["width"] - 1) + 0.5, 0, 1)
    theirs = apply_voi_lut(apply_modality_lut(data.pixel_array, data), data)
    theirs = (theirs - theirs.min()) / (theirs.max() - theirs.min())
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize(
    ("values", "spacing", "where"),
    [
        ({"PixelSpacing": [0, 0]}, None, ""),
        ({}, None, ""),
        ({"PixelSpacing": [0.14, 0.15]}, [0.14, 0.15], "unstated"),
        ({"ImagerPixelSpacing": [0.2, 0.2], "PixelSpacing": [0.18, 0.18]}, [0.2, 0.2], "detector"),
        ({"NominalScannedPixelSpacing": [0.1, 0.1]}, [0.1, 0.1], "film"),
    ],
)
def test_where_a_spacing_holds_is_told(write, values, spacing, where):
    kept = _one(_dataset(**values), write).attributes
    assert (kept["spacing_mm"], kept["spacing_from"]) == (spacing, where)


def test_geometry_is_kept(write):
    data = _dataset(
        ImagerPixelSpacing=[0.2, 0.2],
        PixelSpacing=[0.18, 0.18],
        PixelSpacingCalibrationType="GEOMETRY",
        EstimatedRadiographicMagnificationFactor="1.11",
        DistanceSourceToDetector="1800",
        DistanceSourceToPatient="1620",
    )
    kept = _one(data, write).attributes
    assert kept["pixel_spacing_mm"] == [0.18, 0.18]
    assert kept["pixel_spacing_calibration"] == "geometry"
    assert (kept["magnification"], kept["sid_mm"], kept["source_to_patient_mm"]) == (1.11, 1800.0, 1620.0)


def _code(value: str) -> Sequence:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "SCT", "Planted"
    return Sequence([item])


@pytest.mark.parametrize(
    ("values", "view", "plane"),
    [
        ({"ViewPosition": "AP"}, "AP", "frontal"),
        ({"ViewPosition": "LL"}, "LL", "lateral"),
        ({"ViewPosition": "LATERAL"}, "", "lateral"),
        ({"ViewPosition": None, "ViewCodeSequence": _code("272479007")}, "PA", "frontal"),
        ({"ViewPosition": "", "ViewCodeSequence": _code("R-10232")}, "RL", "lateral"),
        ({"ViewPosition": None, "ViewCodeSequence": _code("399067008")}, "", "lateral"),
        ({"ViewPosition": None, "PatientOrientation": ["L", "F"]}, "", "frontal"),
        ({"ViewPosition": None, "PatientOrientation": ["A", "F"]}, "", "lateral"),
        ({"ViewPosition": None}, "", ""),
    ],
)
def test_the_view_is_told_where_it_is_known(write, values, view, plane):
    kept = _one(_dataset(**values), write).attributes
    assert (kept["view"], kept["plane"]) == (view, plane)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"BodyPartExamined": "HAND"}, "no chest: HAND"),
        ({"BodyPartExamined": "PLANTED"}, "no chest: another part of the body"),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "LOCALIZER"]}, "no radiograph: a localizer"),
        ({"SeriesDescription": "Dual Energy bone"}, "a subtracted picture"),
        ({"QualityControlImage": "YES"}, "a quality-control picture"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "no grey picture"),
        ({"Rows": 65535, "Columns": 65535}, "65535×65535 pixels in 1 frames: no size of a radiograph"),
        ({"NumberOfFrames": 10**6}, "in 1000000 frames: no size of a radiograph"),
        ({"Rows": 1, "Columns": 1}, "1×1 pixels"),
        ({"Rows": 4000, "Columns": 4000}, r"15360 bytes of pixels where its header says 32000000"),
        ({"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31}, "32 bits stored of 32"),
        ({"BitsStored": 12, "HighBit": 15}, "12 bits stored of 16, the highest at 15"),
        ({"Rows": None}, "its header has no Rows"),
        ({"RescaleSlope": "0", "RescaleIntercept": "3"}, "RescaleSlope"),
        ({"WindowCenter": ["1", "2"], "WindowWidth": "3"}, "no pairs"),
    ],
)
def test_what_is_no_chest_radiograph_is_refused(write, values, reason):
    with pytest.raises(Refused, match=reason) as caught:
        _read(write(_dataset(**values)))
    assert caught.value.where == "x.dcm"


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_truncated_file_is_refused_or_whole(write, syntax, caplog):
    """Cut anywhere: at the most its closing delimiter may be missing."""
    data = _dataset()
    if syntax == RLELossless:
        data.compress(syntax, generate_instance_uid=False)
    path = write(data)
    whole = path.read_bytes()
    taken = 0
    for length in np.linspace(0, len(whole) - 1, 40).astype(int):
        path.write_bytes(whole[:length])
        try:
            (radiograph,) = _read(path)
        except Refused:
            continue
        taken += 1
        np.testing.assert_array_equal(radiograph.pixels, RAMP)
    assert taken <= 1
    assert not caplog.records


def test_burned_in_annotation_is_believed(write):
    assert _one(_dataset(BurnedInAnnotation="YES"), write).burned_in == "BurnedInAnnotation is YES"
    assert _one(_dataset(BurnedInAnnotation="NO"), write).burned_in == ""


def test_a_real_chest(real_data):
    """MONOCHROME1 and JPEG 2000, in which GDCM by itself returns 32767 less the stored value."""
    file = real_data / "xray" / "chest_pa_monochrome1_j2k.dcm"
    (radiograph,) = _read(file)
    np.testing.assert_array_equal(radiograph.pixels, pydicom.dcmread(file).pixel_array)
    assert radiograph.pixels.shape == (1955, 1841)
    assert radiograph.pixels.size < MAX_PIXELS
    expected = {
        "modality": "CR",
        "view": "PA",
        "plane": "frontal",
        "patient_orientation": ["L", "F"],
        "spacing_mm": None,
        "spacing_from": "",
        "photometric": "MONOCHROME1",
        "bits_stored": 15,
        "rescale": None,
        "windows": [{"centre": 15000.0, "width": 30000.0}],
        "sid_mm": 1996.0,
        "kvp": 150.0,
        "lossy": True,
        "lossy_ratio": 10.0,
    }
    assert {key: radiograph.attributes[key] for key in expected} == expected
    assert radiograph.date == "19950926"
    assert radiograph.burned_in == ""


@pytest.mark.parametrize("side", [60000, 100])
def test_a_codestream_of_another_size_is_refused(real_data, tmp_path, side):
    """OpenJPEG would reserve 14 GB for the larger one."""
    whole = bytearray((real_data / "xray" / "chest_pa_monochrome1_j2k.dcm").read_bytes())
    size = whole.index(b"\xff\x4f\xff\x51") + 8
    whole[size : size + 8] = side.to_bytes(4, "big") * 2
    (tmp_path / "x.dcm").write_bytes(whole)
    with pytest.raises(Refused, match=rf"{side} rows of {side}, not 1955 of 1841"):
        _read(tmp_path / "x.dcm")


def test_six_compressions_hold_the_same_stored_values(real_data, tmp_path):
    """Signed 16-bit CT pixels in the dress of a CR: padding and all, nothing rescaled."""

    def pixels(name: str) -> np.ndarray:
        data = pydicom.dcmread(real_data / "compressed" / f"CT1_{name}.dcm")
        data.SOPClassUID, data.Modality, data.ImageType = ComputedRadiographyImageStorage, "CR", ["ORIGINAL"]
        data.BodyPartExamined = "CHEST"
        data.save_as(tmp_path / f"{name}.dcm")
        (radiograph,) = _read(tmp_path / f"{name}.dcm")
        return radiograph.pixels

    plain = pixels("UNC")
    assert (plain.dtype, plain.min(), plain.max()) == (np.int16, -2000, 2278)
    for name in ("JLSL", "JPLL", "J2KR", "RLE"):
        np.testing.assert_array_equal(pixels(name), plain)
    assert np.abs(pixels("JLSN").astype(int) - plain).max() == 4
