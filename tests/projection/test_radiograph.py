"""Radiographs become what was projected: whatever a machine made of them, and never in another's place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_radiograph import (
    FULL,
    TAKEN,
    TRAINED,
    agreement,
    compress,
    header,
    line_integrals,
    linear,
    logarithmic,
    shown,
    write,
)
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import HTJ2K, JPEG2000Lossless, RLELossless
from scipy import ndimage

from xr2ct.cohorts.radiographs import read_radiographs
from xr2ct.cohorts.series import Source
from xr2ct.errors import UserError
from xr2ct.projection.geometry import NAMED, Geometry
from xr2ct.projection.radiograph import RadiographView, is_dicom, read_radiograph, to_view

PA = 180.0
SAME = 0.999
"""Correlation; of a mirrored view it is below 0.99."""


def _inverted(view: np.ndarray) -> np.ndarray:
    return FULL - logarithmic(view)


def _lut(data: list[int], first: int = 0, **more: Any) -> Sequence:
    item = Dataset()
    item.add_new("LUTDescriptor", "US", [len(data) % 65536, first, 16])
    item.add_new("LUTData", "US", data)
    for keyword, value in more.items():
        setattr(item, keyword, value)
    return Sequence([item])


FALLING = [60000 - 14 * i for i in range(FULL + 1)]
CHAINS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], dict[str, Any]]] = {
    "shown bright": (logarithmic, {}),
    "monochrome1": (_inverted, {"PhotometricInterpretation": "MONOCHROME1"}),
    "display values": (logarithmic, {"PixelIntensityRelationship": "DISP"}),
    "linear in exposure": (
        linear,
        {
            "PresentationIntentType": "FOR PROCESSING",
            "PixelIntensityRelationship": "LIN",
            "PixelIntensityRelationshipSign": 1,
            "PhotometricInterpretation": "MONOCHROME1",
        },
    ),
    "linear, upside down": (
        lambda view: 65535 - linear(view),
        {"PixelIntensityRelationship": "LIN", "PixelIntensityRelationshipSign": -1},
    ),
    "linear, sign unsaid": (
        linear,
        {"PixelIntensityRelationship": "LIN", "PhotometricInterpretation": "MONOCHROME1"},
    ),
    "log of exposure, sign against the picture's": (
        _inverted,
        {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": 1},
    ),
    "log, rising": (
        logarithmic,
        {
            "PixelIntensityRelationship": "LOG",
            "PixelIntensityRelationshipSign": -1,
            "PhotometricInterpretation": "MONOCHROME1",
        },
    ),
    "rescaled downwards": (
        _inverted,
        {"RescaleSlope": "-1", "RescaleIntercept": "5000", "RescaleType": "US"},
    ),
    "optical density": (
        _inverted,
        {"RescaleSlope": "0.7", "RescaleIntercept": "20", "RescaleType": "OD"},
    ),
    "modality table, falling": (_inverted, {"ModalityLUTSequence": _lut(FALLING, ModalityLUTType="US")}),
    "window": (logarithmic, {"WindowCenter": "900", "WindowWidth": "300", "VOILUTFunction": "SIGMOID"}),
    "voi table, falling": (_inverted, {"VOILUTSequence": _lut(FALLING)}),
    "voi table, a tone curve": (
        logarithmic,
        {"VOILUTSequence": _lut([int(65535 * (i / FULL) ** 3) for i in range(FULL + 1)])},
    ),
}


def _read(path: Path, angle: float = PA, geometry: Geometry = TRAINED, **more: Any) -> RadiographView:
    return read_radiograph(path, angle, geometry, **more)


@pytest.mark.parametrize("chain", CHAINS)
def test_every_chain_of_values_ends_at_the_line_integral(chain: str, tmp_path: Path) -> None:
    stored, values = CHAINS[chain]
    view = _read(write(tmp_path / "x.dcm", stored(shown(line_integrals(PA), PA)), **values))
    assert agreement(view.line_integrals, view.seen, PA) > SAME
    assert view.seen.all()
    truth = line_integrals(PA, TRAINED)
    gain, offset = np.polyfit(truth.ravel(), view.line_integrals.ravel(), 1)
    assert gain * truth.max() == pytest.approx(1, abs=0.05)
    assert abs(offset) < 0.02  # the beam beside the patient is 0


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_compressed_pixels_are_the_same(syntax: str, tmp_path: Path) -> None:
    pixels = logarithmic(shown(line_integrals(PA), PA))
    plain = _read(write(tmp_path / "plain.dcm", pixels))
    compress(header(pixels), syntax).save_as(tmp_path / "x.dcm", enforce_file_format=True)
    np.testing.assert_array_equal(_read(tmp_path / "x.dcm").line_integrals, plain.line_integrals)


def test_a_compression_that_is_not_decoded_is_named(tmp_path: Path) -> None:
    data = compress(header(logarithmic(line_integrals(PA))), JPEG2000Lossless)
    data.file_meta.TransferSyntaxUID = HTJ2K
    data.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    with pytest.raises(UserError, match="compressed as High-Throughput JPEG 2000 Image Compression"):
        _read(tmp_path / "x.dcm")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("flips", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
@pytest.mark.parametrize(("angle", "view"), [(0.0, "AP"), (90.0, "RL"), (180.0, "PA"), (270.0, "LL")])
def test_patient_orientation_is_followed(
    angle: float, view: str, flips: tuple[int, int], transposed: bool, tmp_path: Path
) -> None:
    pixels = logarithmic(line_integrals(angle))  # columns along the view's own direction
    across = {0.0: "LR", 90.0: "PA", 180.0: "RL", 270.0: "AP"}[angle]
    directions = [across[flips[1] < 0], "FH"[flips[0] < 0]]
    pixels = pixels[:: flips[0], :: flips[1]]
    if transposed:
        pixels, directions = pixels.T, directions[::-1]
    path = write(tmp_path / "x.dcm", pixels, ViewPosition=view, PatientOrientation=directions)
    found = _read(path, angle)
    assert agreement(found.line_integrals, found.seen, angle) > SAME


@pytest.mark.parametrize(("angle", "view"), [(0.0, "AP"), (90.0, "RL"), (180.0, "PA"), (270.0, "LL")])
def test_without_an_orientation_it_lies_as_a_reader_sees_it(angle: float, view: str, tmp_path: Path) -> None:
    pixels = logarithmic(shown(line_integrals(angle), angle))
    path = write(tmp_path / "x.dcm", pixels, ViewPosition=view, PatientOrientation=None)
    found = _read(path, angle)
    assert agreement(found.line_integrals, found.seen, angle) > SAME
    assert any("as shown to a reader" in note for note in found.notes)


def _blades(shape: tuple[int, int], tilt_deg: float) -> np.ndarray:
    """(row, col) bool: open field between four blades, not at the same distance."""
    field = np.zeros(shape)
    field[25:-35, 40:-20] = 1
    return ndimage.rotate(field, tilt_deg, reshape=False, order=0) > 0


@pytest.mark.parametrize("tilt_deg", [0.0, 3.0])
@pytest.mark.parametrize("level", ["unexposed", "masked black"])
def test_collimation_is_found_in_the_picture(level: str, tilt_deg: float, tmp_path: Path) -> None:
    truth = shown(line_integrals(PA), PA)
    field = _blades(truth.shape, tilt_deg)
    pixels = logarithmic(truth)
    if level == "unexposed":
        noise = np.random.default_rng(0).integers(-20, 20, truth.shape)
        pixels = np.where(field, pixels, FULL - 100 + noise)
    else:
        pixels = np.where(field, pixels, 0)
    found = _read(write(tmp_path / "x.dcm", pixels.astype(np.uint16)))
    expected = field[2::5, 2::5][:, ::-1]
    assert (found.seen & ~expected).mean() < 0.005  # hardly a blade taken for patient
    assert (~found.seen & expected).mean() < 0.05
    assert agreement(found.line_integrals, found.seen, PA) > SAME
    assert not found.line_integrals[~found.seen].any()
    assert any("collimated" in note for note in found.notes)


@pytest.mark.parametrize(
    "told",
    [
        {
            "ShutterShape": "RECTANGULAR",
            "ShutterLeftVerticalEdge": 40,
            "ShutterRightVerticalEdge": 281,
            "ShutterUpperHorizontalEdge": 40,
            "ShutterLowerHorizontalEdge": 281,
        },
        {
            "CollimatorShape": "POLYGONAL",
            "VerticesOfThePolygonalCollimator": [40, 40, 40, 281, 281, 281, 281, 40],
        },
    ],
)
def test_collimation_is_taken_from_the_header(told: dict[str, Any], tmp_path: Path) -> None:
    pixels = logarithmic(shown(line_integrals(PA), PA))
    found = _read(write(tmp_path / "x.dcm", pixels, **told))
    inside = np.zeros((64, 64), bool)
    inside[8:-8, 8:-8] = True
    np.testing.assert_array_equal(found.seen, inside)


def test_a_collimator_in_other_units_is_not_believed(tmp_path: Path) -> None:
    """As a Philips Thoravision writes: millimetres from the middle."""
    told = {
        "CollimatorShape": "RECTANGULAR",
        "CollimatorLeftVerticalEdge": -184,
        "CollimatorRightVerticalEdge": 184,
        "CollimatorUpperHorizontalEdge": 907,
        "CollimatorLowerHorizontalEdge": 1299,
    }
    pixels = logarithmic(shown(line_integrals(PA), PA))
    assert _read(write(tmp_path / "x.dcm", pixels, **told)).seen.all()


def test_padding_is_no_measurement(tmp_path: Path) -> None:
    pixels = logarithmic(shown(line_integrals(PA), PA))
    pixels[:, :50] = 4095
    found = _read(write(tmp_path / "x.dcm", pixels, PixelPaddingValue=4095))
    assert not found.seen[:, -9:].any()
    assert found.seen[:, :-11].all()


def test_a_chest_that_fills_its_picture_has_a_zero_too(tmp_path: Path) -> None:
    """Nothing of the beam passes beside it, as in a close collimation."""
    near = TRAINED.pixels // 4
    pixels = logarithmic(shown(line_integrals(PA), PA))[100:220, 100:220]
    found = _read(write(tmp_path / "x.dcm", pixels))
    inside = found.line_integrals[found.seen]
    truth = line_integrals(PA, TRAINED)[found.seen]
    assert found.seen.sum() == pytest.approx((120 / 5) ** 2, rel=0.1)
    assert near < found.seen.any(axis=0).sum()
    assert np.corrcoef(inside, truth)[0, 1] > 0.998
    assert np.percentile(inside, 2) == pytest.approx(0.25, abs=0.02)
    assert any("no beam" in note for note in found.notes)


def test_a_marker_of_lead_does_not_set_the_scale(tmp_path: Path) -> None:
    pixels = logarithmic(shown(line_integrals(PA), PA) * 0.6)
    plain = _read(write(tmp_path / "plain.dcm", pixels // 2))
    pixels[20:28, 20:26] = 2 * FULL  # once halved, twice as much as anything else
    marked = _read(write(tmp_path / "x.dcm", pixels // 2))
    assert np.median(np.abs(marked.line_integrals - plain.line_integrals)) < 0.01


@pytest.mark.parametrize("spacing", [(1.34375, 1.34375), (0.8, 1.1)])
def test_pixels_of_any_size_land_where_they_were(spacing: tuple[float, float], tmp_path: Path) -> None:
    row_mm, col_mm = spacing
    zoom = (TAKEN.pixel_mm / row_mm, TAKEN.pixel_mm / col_mm)
    pixels = logarithmic(
        ndimage.zoom(shown(line_integrals(PA), PA), zoom, order=1, grid_mode=True, mode="nearest")
    )
    found = _read(write(tmp_path / "x.dcm", pixels, ImagerPixelSpacing=[row_mm, col_mm]))
    assert agreement(found.line_integrals, found.seen, PA) > SAME


def test_fine_lines_do_not_fold_back(tmp_path: Path) -> None:
    """A grid's lines, finer than the detector's pixels that a model knows."""
    pixels = logarithmic(shown(line_integrals(PA), PA)).astype(int)
    lined = pixels + 300 * (-1) ** (np.arange(TAKEN.pixels) // 1) * (pixels > 500)
    plain, found = (
        _read(write(tmp_path / name, np.clip(p, 0, FULL).astype(np.uint16)))
        for name, p in (("plain.dcm", pixels), ("x.dcm", lined))
    )
    assert np.abs(found.line_integrals - plain.line_integrals)[8:-8, 8:-8].mean() < 0.01


@pytest.mark.parametrize("sid_mm", [1700.0, 1996.0])
def test_another_distance_is_shown_at_the_trained_one(sid_mm: float, tmp_path: Path) -> None:
    """The same chest before the same detector, the source elsewhere: about the isocentre it is alike."""
    machine = Geometry("other", sid_mm - 200, sid_mm, TAKEN.detector_mm, TAKEN.pixels)
    pixels = logarithmic(shown(line_integrals(PA, machine), PA))
    path = write(tmp_path / "x.dcm", pixels, DistanceSourceToDetector=sid_mm, DistanceSourceToPatient=None)
    assert agreement(_read(path).line_integrals, _read(path).seen, PA) > 0.998


def test_a_pixel_size_in_the_patient_is_not_reduced_again(tmp_path: Path) -> None:
    pixels = logarithmic(shown(line_integrals(PA), PA))
    told = {"ImagerPixelSpacing": None, "PixelSpacing": [TAKEN.pixel_mm / TAKEN.magnification] * 2}
    found = _read(write(tmp_path / "x.dcm", pixels, **told, PixelSpacingCalibrationType="GEOMETRY"))
    assert agreement(found.line_integrals, found.seen, PA) > SAME


@pytest.mark.parametrize("spacing", [None, [0, 0]])
def test_a_size_that_no_header_tells_has_to_be_stated(spacing: list[float] | None, tmp_path: Path) -> None:
    pixels = logarithmic(shown(line_integrals(PA), PA))
    path = write(tmp_path / "x.dcm", pixels, ImagerPixelSpacing=None, PixelSpacing=spacing)
    with pytest.raises(UserError, match=r"x\.dcm: its header has no pixel spacing.*--detector-mm"):
        _read(path)
    found = _read(path, detector_mm=TAKEN.detector_mm)
    assert agreement(found.line_integrals, found.seen, PA) > SAME


def test_a_stated_size_may_not_contradict_the_header(tmp_path: Path) -> None:
    path = write(tmp_path / "x.dcm", logarithmic(shown(line_integrals(PA), PA)))
    with pytest.raises(UserError, match="430 mm by its header, 350 mm as stated"):
        _read(path, detector_mm=350.0)
    assert _read(path, detector_mm=350.0, accept=["spacing"]).seen.mean() == pytest.approx(
        (35 / 43) ** 2, rel=0.05
    )
    assert _read(path, detector_mm=432.0).seen.all()


@pytest.mark.parametrize(
    ("told", "angle", "message"),
    [
        ({"ViewPosition": "AP"}, PA, r"header says view AP, given as PA \(180°\); mirrored they differ"),
        ({"ViewPosition": "LL"}, PA, r"header says view LL, given as PA \(180°\) \(`--accept view`"),
        ({"ViewPosition": "RL"}, 270.0, r"header says view RL, given as LLAT \(270°\); mirrored"),
        (
            {"ViewPosition": None, "PatientOrientation": ["A", "F"]},
            PA,
            "header says a lateral view, given as PA",
        ),
        ({"ViewPosition": "LATERAL", "PatientOrientation": None}, 0.0, "header says a lateral view"),
        ({"ViewPosition": None}, 45.0, r"header says a frontal view, given as \(45°\)"),
        (
            {"DistanceSourceToDetector": 1000, "DistanceSourceToPatient": 800},
            PA,
            r"says 1000 mm from source to detector \(about 800 to the patient\).*trained with 1800 \(1600\)",
        ),
        ({"DistanceSourceToDetector": 900, "DistanceSourceToPatient": None}, PA, "about 700 to the patient"),
    ],
)
def test_a_header_that_contradicts_is_refused(
    told: dict[str, Any], angle: float, message: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "x.dcm", logarithmic(shown(line_integrals(PA), PA)), **told)
    with pytest.raises(UserError, match=message):
        _read(path, angle)
    assert "\n" not in _message(path, angle)


def _message(path: Path, angle: float) -> str:
    with pytest.raises(UserError) as caught:
        _read(path, angle)
    return str(caught.value)


def test_an_orientation_of_another_view_is_refused_whatever_is_accepted(tmp_path: Path) -> None:
    path = write(
        tmp_path / "x.dcm", logarithmic(line_integrals(PA)), ViewPosition="PA", PatientOrientation=["A", "F"]
    )
    with pytest.raises(UserError, match="PatientOrientation"):
        _read(path, accept=["view"])


@pytest.mark.parametrize(
    ("told", "accept"), [({"ViewPosition": "AP"}, "view"), ({"DistanceSourceToDetector": 1000}, "distance")]
)
def test_what_is_accepted_is_noted(told: dict[str, Any], accept: str, tmp_path: Path) -> None:
    path = write(tmp_path / "x.dcm", logarithmic(shown(line_integrals(PA), PA)), **told)
    assert any(note.startswith("accepted: ") for note in _read(path, accept=[accept]).notes)


def test_where_the_patient_is_said_to_be_at_the_support_his_middle_is_not(tmp_path: Path) -> None:
    pixels = logarithmic(shown(line_integrals(PA), PA))
    at_support, at_middle = (
        _read(write(tmp_path / f"{mm}.dcm", pixels, DistanceSourceToPatient=mm)).line_integrals
        for mm in (1760, 1600)
    )
    np.testing.assert_array_equal(at_support, at_middle)


def test_what_is_no_radiograph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.dcm").write_bytes(b"no picture")
    for path, message in ((tmp_path / "x.dcm", "not DICOM"), (tmp_path / "none.dcm", "no such file")):
        with pytest.raises(UserError, match=message):
            _read(path)
    path = write(tmp_path / "hand.dcm", logarithmic(line_integrals(PA)), BodyPartExamined="HAND")
    with pytest.raises(UserError, match="no chest: HAND"):
        _read(path)


def test_dicom_is_known_by_its_first_bytes(tmp_path: Path) -> None:
    assert is_dicom(write(tmp_path / "IM0001", logarithmic(line_integrals(PA))))
    (tmp_path / "x.npy").write_bytes(b"\x93NUMPY" + bytes(200))
    assert not is_dicom(tmp_path / "x.npy")
    assert is_dicom(tmp_path / "gone.dcm")
    assert not is_dicom(tmp_path / "gone")


def test_a_real_radiograph(real_data: Path) -> None:
    """MONOCHROME1, JPEG 2000, no spacing: 1955 rows of 0.2 mm, as its plate's 1841 columns of 368 mm tell."""
    file, geometry = real_data / "xray" / "chest_pa_monochrome1_j2k.dcm", NAMED["chest-1800"]
    (picture,) = read_radiographs(Source("", "", "", "radiograph", (file,)))

    def made(angle: float, geometry: Geometry, detector_mm: float | None = 391.0) -> RadiographView:
        return to_view(
            picture.pixels, picture.attributes, angle, geometry, file.name, detector_mm=detector_mm
        )

    with pytest.raises(UserError, match="no pixel spacing"):
        made(PA, geometry, None)
    with pytest.raises(UserError, match=r"view PA, given as AP \(0°\)"):
        made(0.0, geometry)
    with pytest.raises(UserError, match=r"1996 mm from source.*trained with 949 \(541\)"):
        made(PA, NAMED["x2ct"])
    view = made(PA, geometry)
    assert view.seen.any(axis=0).sum() == pytest.approx(368 / 430 * 256, rel=0.03)
    middle, left, right = (
        view.line_integrals[90:150, cols].mean() for cols in (slice(116, 140), slice(60, 90), slice(166, 196))
    )
    assert middle > 1.2 * max(left, right)  # mediastinum over lungs
    # The heart lies at the patient's left, where the columns of a view from behind begin.
    assert view.line_integrals[150:170, 70:110].mean() > view.line_integrals[150:170, 146:186].mean()
    assert not view.line_integrals[20:30, 24:36].max() > 0.2  # beam beside the neck
