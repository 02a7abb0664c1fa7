"""What is found in a folder: grouped by identity, left out with a reason, refused by patient."""

from __future__ import annotations

import pytest
import SimpleITK as sitk
from pydicom.uid import SecondaryCaptureImageStorage

from xr2ct.cohorts.refused import Refusal
from xr2ct.cohorts.series import find_sources, scan
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


def test_links_are_followed_once(tmp_path, chest, write_series):
    write_series(tmp_path / "store", chest)
    (tmp_path / "cohort").mkdir()
    (tmp_path / "cohort" / "P-1").symlink_to(tmp_path / "store")
    (tmp_path / "store" / "loop").symlink_to(tmp_path / "cohort")
    (source,), refusals = find_sources(tmp_path / "cohort")
    assert len(source.files) == 24
    assert not refusals
