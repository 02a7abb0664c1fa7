"""What is found in a folder: grouped by identity, left out with a reason, refused by patient."""

from __future__ import annotations

from pathlib import Path

import pytest
import SimpleITK as sitk
from pydicom.uid import DigitalXRayImageStorageForPresentation, SecondaryCaptureImageStorage

from xr2ct.cohorts.facts import Facts
from xr2ct.cohorts.reader import read_volume
from xr2ct.cohorts.refused import Refusal, Refused
from xr2ct.cohorts.series import find_sources, scan, volume_patient
from xr2ct.cohorts.volume import NativeVolume
from xr2ct.errors import UserError


def test_series_are_grouped_by_content_whatever_the_names(tmp_path, chest, write_series):
    names = [f"{'ABCDEF'[i % 6]}{97 - i}" for i in range(24)]
    write_series(tmp_path, chest, patient="P-2", series="1.2.3.9", names=names)
    write_series(tmp_path, chest, patient="P-1", series="1.2.3.1")
    write_series(tmp_path / "deep" / "er", chest, patient="P-1", series="1.2.3.2", bare=True)
    (tmp_path / "notes.txt").write_text("nothing to see")
    (tmp_path / "deep" / "table.csv").write_text("a,b\n1,2\n")
    # Pixels of a raw file that happen to begin as a data set without preamble would.
    (tmp_path / "deep" / "labels.raw").write_bytes(b"\x08\x00\x05\x00\x0a\x00\x00\x00" * 500)

    sources, refusals = find_sources(tmp_path)

    assert [(s.patient, s.series, len(s.files)) for s in sources] == [
        ("P-1", "1.2.3.1", 24),
        ("P-1", "1.2.3.2", 24),
        ("P-2", "1.2.3.9", 24),
    ]
    assert {s.kind for s in sources} == {"dicom"}
    assert refusals == []


def test_what_is_no_slice_is_left_out_and_not_refused(tmp_path, chest, write_series):
    def localizer(index, data):
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    def capture(index, data):
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage

    def dose_page(index, data):
        data.ImageType = ["DERIVED", "SECONDARY", "DOSE_INFO"]

    def screen_save(index, data):
        data.ImageType = ["DERIVED", "SECONDARY"]
        del data.ImagePositionPatient

    def structures(index, data):
        data.SOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
        data.Modality = "RTSTRUCT"

    write_series(tmp_path / "ct", chest)
    faults = [localizer, capture, dose_page, screen_save, structures]
    for number, fault in enumerate(faults):
        # The localizer lies in the scan's own series, as some scanners write it.
        series = "1.2.3.1" if fault is localizer else f"1.2.4.{number}"
        write_series(tmp_path / fault.__name__, chest, series=series, edit=fault)

    found = scan(tmp_path)

    assert [(s.series, len(s.files)) for s in found.sources] == [("1.2.3.1", 24)]
    assert found.refusals == []
    assert sorted(line.reason for line in found.left_out) == [
        "dose page (24 files)",
        "localizer (24 files)",
        "modality RTSTRUCT (24 files)",
        "screen save (24 files)",
        "secondary capture (24 files)",
    ]


def test_a_patient_with_nothing_else_is_refused(tmp_path, chest, write_series):
    def localizer(index, data):
        data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]

    write_series(tmp_path / "a", chest, patient="P-3", edit=localizer)
    assert find_sources(tmp_path) == ([], [Refusal("P-3", "", "no CT series: localizer (24 files)")])


def test_reformatted_slices_are_usable_but_marked(tmp_path, chest, write_series):
    def reformatted(index, data):
        data.ImageType = ["DERIVED", "SECONDARY", "REFORMATTED", "AVERAGE"]

    write_series(tmp_path, chest, edit=reformatted)
    ((source,), refusals) = find_sources(tmp_path)
    assert source.derived and not refusals


def test_rubbish_is_refused_by_name_and_the_rest_goes_on(tmp_path, chest, write_series):
    write_series(tmp_path / "good", chest)
    (tmp_path / "rubbish").mkdir()
    (tmp_path / "rubbish" / "page.dcm").write_text("<html>404 not found</html>")
    (tmp_path / "rubbish" / "zero.dcm").touch()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to_whom.pdf").write_bytes(b"%PDF-1.4 no image")
    (tmp_path / "empty").mkdir()

    sources, refusals = find_sources(tmp_path)

    assert [s.patient for s in sources] == ["P-1"]
    assert refusals == [
        Refusal("empty", "", "no image found"),
        Refusal("letters", "", "no image found"),
        Refusal("rubbish", "", "not DICOM (and 1 more)", "page.dcm"),
    ]


def test_a_folder_without_an_image_has_one_outcome(tmp_path):
    folder = tmp_path / "nothing"
    folder.mkdir()
    assert find_sources(folder) == ([], [Refusal("nothing", "", "no image among 0 files")])
    (folder / "readme.txt").write_text("hello")
    assert find_sources(folder) == ([], [Refusal("nothing", "", "no image among 1 files")])
    with pytest.raises(UserError, match="no such folder"):
        find_sources(tmp_path / "nowhere")


@pytest.mark.parametrize("spoil", ["emptied", "header cut"])
def test_an_unreadable_file_spoils_the_one_series_beside_it(tmp_path, chest, write_series, spoil):
    """The last slice of a series: its loss leaves no gap, so nothing else would show it."""
    write_series(tmp_path / "other", chest, patient="P-2", series="1.2.3.2")
    last = write_series(tmp_path / "spoilt", chest, patient="P-1")[-1]
    last.write_bytes(b"" if spoil == "emptied" else last.read_bytes()[:400])

    sources, refusals = find_sources(tmp_path)

    assert [s.patient for s in sources] == ["P-2"]
    (refusal,) = refusals
    assert (refusal.patient, refusal.series) == ("P-1", "1.2.3.1")
    assert refusal.where == "023.dcm"


def test_no_patient_id(tmp_path, chest, write_series):
    write_series(tmp_path / "who", chest, patient="")
    assert find_sources(tmp_path) == ([], [Refusal("who", "", "24 DICOM images without PatientID")])


def test_volume_files_name_their_patients(tmp_path):
    image = sitk.Image(4, 4, 4, sitk.sitkInt16)
    for name in ["a.nii.gz", "b.mha", "c/c.nrrd", "x/ct.nii", "y/ct.nii", "z/ct.mhd"]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        sitk.WriteImage(image, str(tmp_path / name))

    sources, refusals = find_sources(tmp_path)

    assert [(s.patient, s.series, s.kind) for s in sources] == [
        ("a", "a", "nifti"),
        ("b", "b", "mha"),
        ("c", "c", "nrrd"),
        ("x", "ct", "nifti"),
        ("y", "ct", "nifti"),
        ("z", "ct", "mha"),
    ]
    assert refusals == []


def test_another_file_never_renames_a_patient():
    """A name comes from the file's own path; two files are two patients unless their names say otherwise."""
    names = {
        "a.nii.gz": "a",
        "P1/ct.nii": "P1",
        "P1/s2/Volume.nrrd": "P1-s2",
        "P1/P1_lung.nii": "P1",
        "P1/P10_lung.nii": "P1-P10_lung",
        "sub-01/ses-1/ct/sub-01_ses-1_ct.nii.gz": "sub-01",
        "c/c.nrrd": "c",
        "images/P2.nii": "images-P2",
        "labels/P2.nii": "labels-P2",
    }
    assert {name: volume_patient(Path(name)) for name in names} == names


def test_one_volume_in_two_formats_is_one_scan(tmp_path):
    image = sitk.Image(4, 4, 4, sitk.sitkInt16)
    for name in ["a.mha", "a.nii.gz"]:
        sitk.WriteImage(image, str(tmp_path / name))
    (tmp_path / "b.nii.gz").write_bytes(b"no volume")
    found = scan(tmp_path)
    assert [s.files[0].name for s in found.sources] == ["a.mha"]
    assert [(r.patient, r.where) for r in found.left_out] == [("a", "a.nii.gz")]
    assert found.refusals == [Refusal("b", "b", "cannot be read as nifti", "b.nii.gz")]


def test_facts_of_a_volume_file_are_along_the_patients_axes(tmp_path):
    image = sitk.Image(4, 5, 6, sitk.sitkInt16)
    image.SetSpacing((1.0, 2.0, 3.0))
    image.SetDirection((0, 0, 1, 1, 0, 0, 0, 1, 0))
    sitk.WriteImage(image, str(tmp_path / "a.nrrd"))
    (source,) = scan(tmp_path).sources
    assert source.facts == Facts(spacing_mm=(2.0, 1.0, 3.0), slices=5)


def test_facts_of_a_series(tmp_path, chest, write_series):
    def varied(index, data):
        data.Modality = "CT"
        data.ConvolutionKernel = ["I50f", "3"]
        data.AcquisitionDate = "20200301" if index else ""
        del data.ContrastBolusAgent
        if index == 3:
            data.SliceThickness = 99

    write_series(tmp_path, chest, edit=varied)
    (source,) = scan(tmp_path).sources
    assert source.facts == Facts("CT", "I50f\\3", False, 10.0, (10.0, 6.0, 5.0), 24, "20200229")
    assert source.flaw is None


@pytest.mark.parametrize(
    ("agent", "route", "contrast"),
    [("IOHEXOL", None, True), ("", None, None), ("NONE", None, False), ("", "IV", True), (None, "IV", True)],
)
def test_contrast_as_far_as_headers_say(tmp_path, chest, write_series, agent, route, contrast):
    def given(index, data):
        data.ContrastBolusAgent = agent
        data.ContrastBolusRoute = route
        for keyword, value in (("ContrastBolusAgent", agent), ("ContrastBolusRoute", route)):
            if value is None:
                delattr(data, keyword)

    small = NativeVolume(chest.hu[:2, :4, :4], chest.spacing_mm, {})
    write_series(tmp_path, small, edit=given)
    (source,) = scan(tmp_path).sources
    assert source.facts.contrast is contrast


def test_copies_are_taken_once(tmp_path, chest, write_series):
    """The same files in a second folder; slices that share a UID but not a place are no copies."""
    write_series(tmp_path / "a", chest)
    write_series(tmp_path / "b" / "again", chest)

    def one_uid(index, data):
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = "1.2.3.1"

    write_series(tmp_path / "c", chest, patient="P-2", series="1.2.9", edit=one_uid)
    found = scan(tmp_path)
    assert [(s.patient, len(s.files), s.flaw) for s in found.sources] == [
        ("P-1", 24, None),
        ("P-2", 24, None),
    ]
    assert {f.parent.name for f in found.sources[0].files} == {"a"}
    assert found.left_out == [Refusal("P-1", "1.2.3.1", "copies of slices that are there already (24 files)")]


def test_a_series_over_several_folders_and_two_patients_in_one(tmp_path, chest, write_series):
    write_series(tmp_path, chest, patient="A", series="1.2.1", names=[f"{i}" for i in range(24)])
    files = write_series(tmp_path, chest, patient="B", series="1.2.2", names=[f"b{i}" for i in range(24)])
    (tmp_path / "moved").mkdir()
    for path in files[::2]:
        path.rename(tmp_path / "moved" / path.name)
    found = scan(tmp_path)
    assert [(s.patient, len(s.files), s.flaw) for s in found.sources] == [("A", 24, None), ("B", 24, None)]
    assert not found.refusals


def test_two_acquisitions_in_a_series(tmp_path, chest, write_series):
    """Told apart by AcquisitionNumber where they lie in the same places; refused where nothing tells them."""

    def second(index, data):
        data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.1.{index + 101}"
        data.AcquisitionNumber = 2
        data.PixelData = data.PixelData[::-1]

    def first(index, data):
        data.AcquisitionNumber = 1

    write_series(tmp_path / "a", chest, edit=first)
    write_series(tmp_path / "b", chest, edit=second)
    sources = scan(tmp_path).sources
    assert [(s.series, {f.parent.name for f in s.files}, s.flaw) for s in sources] == [
        ("1.2.3.1#1", {"a"}, None),
        ("1.2.3.1#2", {"b"}, None),
    ]

    write_series(tmp_path / "a", chest)
    (source,) = scan(tmp_path).sources
    assert source.series == "1.2.3.1"
    assert source.flaw is not None and "duplicated slices: 24 of 48" in source.flaw.reason


def test_acquisitions_one_above_the_other_are_one_scan(tmp_path, chest, write_series):
    def halves(index, data):
        data.AcquisitionNumber = 1 + index // 12

    write_series(tmp_path, chest, edit=halves)
    (source,) = scan(tmp_path).sources
    assert (source.series, len(source.files), source.flaw) == ("1.2.3.1", 24, None)


def test_flaws_are_those_that_reading_would_find(tmp_path, chest, write_series):
    def tilted(index, data):
        data.GantryDetectorTilt = 12

    for fault, patient in ((tilted, "A"), (None, "B")):
        files = write_series(
            tmp_path / patient, chest, patient=patient, series=f"1.2.{ord(patient)}", edit=fault
        )
    files[9].unlink()
    for source in scan(tmp_path).sources:
        assert source.flaw is not None
        with pytest.raises(Refused) as refused:
            read_volume(source)
        assert refused.value.reason == source.flaw.reason


def test_radiographs_are_kept_beside(tmp_path, chest, write_series):
    def radiograph(index, data):
        data.Modality = "DX"
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation

    write_series(tmp_path / "ct", chest)
    picture = NativeVolume(chest.hu[:1], chest.spacing_mm, {})
    write_series(tmp_path / "dx", picture, series="1.2.9", edit=radiograph)
    found = scan(tmp_path)
    assert [s.series for s in found.sources] == ["1.2.3.1"]
    assert [(s.series, s.kind, s.facts.modality, s.facts.date) for s in found.radiographs] == [
        ("1.2.9", "radiograph", "DX", "20200229")
    ]
    assert not found.refusals and not found.left_out


def test_headers_that_would_tell_a_name_do_not(tmp_path, chest, write_series):
    def planted(index, data):
        data.Modality = "DOE"
        data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = "1.2.826.0.1.99"
        data.ImageType = ["DERIVED", "SECONDARY", "DOSE_DOE"]
        data.ConvolutionKernel = "DOE"

    write_series(tmp_path, NativeVolume(chest.hu[:2], chest.spacing_mm, {}), edit=planted)
    found = scan(tmp_path)
    assert "DOE" not in repr([(r.reason, r.where) for r in (*found.refusals, *found.left_out)])
    assert "DOE" not in repr([source.facts for source, _ in found.others])


def test_links_are_followed_once(tmp_path, chest, write_series):
    write_series(tmp_path / "store", chest)
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "P-1").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "cohort")
    (source,), refusals = find_sources(tmp_path / "cohort")
    assert len(source.files) == 24
    assert not refusals
