"""Synthetic chests as files: what an independent reader makes of them, and that they say what they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from xr2ct.cohorts.phantom import dicom, patient_seed, scan, write_cohort
from xr2ct.cohorts.phantom.scanner import Scan, as_volume
from xr2ct.cohorts.volume import NativeVolume
from xr2ct.errors import UserError

# explicit with padding and a scout of its own; RLE, unsigned; implicit, unsigned; a scout in the same series
WRITTEN = ("lidc-idri", "covid-19-ny-sbu", "anti-pd-1", "midrc-ricord-1b")
SEED = 7


@pytest.fixture(scope="module")
def chests() -> dict[str, NativeVolume]:
    """What was to be written."""
    return {}


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory, chests: dict[str, NativeVolume]) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("dicom")

    def keep(seed: int, cohort: str) -> Scan:
        taken = scan(seed, cohort)
        assert seed == patient_seed(SEED, cohort, 1)
        chests[cohort] = as_volume(taken)
        return taken

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dicom, "scan", keep)
        return {cohort: write_cohort(root, cohort, 1, SEED)[0] for cohort in WRITTEN}


def _headers(folder: Path) -> dict[Path, pydicom.Dataset]:
    return {f: pydicom.dcmread(f, stop_before_pixels=True) for f in sorted(folder.iterdir())}


def _axial(folder: Path) -> dict[Path, pydicom.Dataset]:
    return {f: h for f, h in _headers(folder).items() if h.ImageType[2] == "AXIAL"}


@pytest.mark.parametrize("cohort", WRITTEN)
def test_gdcm_reads_the_same_chest(
    series: dict[str, Path], chests: dict[str, NativeVolume], cohort: str
) -> None:
    files = sorted(_axial(series[cohort]).items(), key=lambda f: f[1].ImagePositionPatient[2])
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(f) for f, _ in files])
    image = reader.Execute()
    hu = sitk.GetArrayFromImage(image)
    expected = chests[cohort]
    padding = files[0][1].get("PixelPaddingValue")
    if padding is not None:
        outside = hu == padding + files[0][1].RescaleIntercept
        assert outside[:, 0, 0].all() and not outside[:, 96, 96].any()
        hu[outside] = -1024
    np.testing.assert_array_equal(hu, expected.hu)
    np.testing.assert_allclose(image.GetSpacing(), expected.spacing_mm[::-1], atol=1e-5)
    np.testing.assert_allclose(image.GetDirection(), np.eye(3).ravel())


@pytest.mark.parametrize("cohort", WRITTEN)
def test_slices_are_told_by_position_not_by_name(series: dict[str, Path], cohort: str) -> None:
    headers = list(_axial(series[cohort]).values())
    z = np.array([float(h.ImagePositionPatient[2]) for h in headers])
    assert (np.diff(z) > 0).any() and (np.diff(z) < 0).any()
    spacing = float(headers[0].SpacingBetweenSlices)
    np.testing.assert_allclose(np.diff(np.sort(z)), spacing, atol=1e-4)
    by_instance = z[np.argsort([int(h.InstanceNumber) for h in headers])]
    assert (np.diff(by_instance) < 0).all()


@pytest.mark.parametrize("cohort", WRITTEN)
def test_every_file_says_that_it_is_synthetic(series: dict[str, Path], cohort: str) -> None:
    for header in _headers(series[cohort]).values():
        assert header.PatientName == "Synthetic^Chest" and header.PatientID.startswith("SYN-")
        assert header.Manufacturer == "xr2ct synthetic"
        assert header.ContentQualification == "RESEARCH"
        assert header.ImageComments.startswith("SYNTHETIC")
        assert header.PatientIdentityRemoved == "YES"
        assert header.SOPClassUID == pydicom.uid.CTImageStorage
        assert header.SOPInstanceUID == header.file_meta.MediaStorageSOPInstanceUID


def test_cohorts_are_written_in_their_own_ways(series: dict[str, Path]) -> None:
    first = {cohort: next(iter(_axial(folder).values())) for cohort, folder in series.items()}
    syntaxes = [first[cohort].file_meta.TransferSyntaxUID.name for cohort in WRITTEN]
    assert syntaxes == [
        "Explicit VR Little Endian",
        "RLE Lossless",
        "Implicit VR Little Endian",
        "Explicit VR Little Endian",
    ]
    assert [first[cohort].PixelRepresentation for cohort in WRITTEN] == [1, 0, 0, 1]
    assert len({header.PatientID for header in first.values()}) == len(WRITTEN)
    scouts = {
        cohort: [
            h.SeriesInstanceUID == first[cohort].SeriesInstanceUID
            for h in _headers(folder).values()
            if h.ImageType[2] == "LOCALIZER"
        ]
        for cohort, folder in series.items()
    }
    assert scouts == {
        "lidc-idri": [False],
        "covid-19-ny-sbu": [False],
        "anti-pd-1": [],
        "midrc-ricord-1b": [True],
    }
    uids = [h.SOPInstanceUID for folder in series.values() for h in _headers(folder).values()]
    assert len(set(uids)) == len(uids)


def test_a_patient_is_the_same_bytes_whatever_else_is_written(tmp_path: Path) -> None:
    both = write_cohort(tmp_path / "both", "covid-19-ny-sbu", 2, SEED, workers=2)
    alone = write_cohort(tmp_path / "alone", "covid-19-ny-sbu", 1, SEED, start=2)
    assert [f.parent.parent.name for f in both] == ["SYN-NYSBU-0001", "SYN-NYSBU-0002"]
    assert _digest(tmp_path / "both", both[1]) == _digest(tmp_path / "alone", alone[0])
    assert _digest(tmp_path / "both", both[0]) != _digest(tmp_path / "both", both[1])


def _digest(root: Path, folder: Path) -> dict[str, str]:
    return {
        str(f.relative_to(root)): hashlib.sha256(f.read_bytes()).hexdigest() for f in sorted(folder.iterdir())
    }


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="lctsc"):
        write_cohort(tmp_path, "lctcs", 1, 0)
    with pytest.raises(UserError, match="start at 1"):
        write_cohort(tmp_path, "lctsc", 0, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="it is a file"):
        write_cohort(tmp_path / "file", "lctsc", 1, 0)
