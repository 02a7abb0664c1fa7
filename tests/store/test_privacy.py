"""Identifiers planted in every text element of a small hospital: none of them is in anything that comes out.

The whole way is gone in one test: plan, ingest (with series that are refused, a spare, radiographs), repair,
inspection with sheet and page, projection, export. What the user typed is echoed, so the folder named on the
command line is called something innocent, and nothing in it is. PLAN.scan alone holds identifiers: by it the
source is found again, and only its owner may read it.
"""

from __future__ import annotations

import csv
import hashlib
import logging
import re
import stat
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pydicom
import pytest
from chest_volumes import CUBE_MM, chest, spoil, write_dicom, write_mha, write_radiograph
from PIL import Image, ImageDraw
from pydicom.datadict import DicomDictionary
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from xr2ct.cli import main
from xr2ct.cohorts.plan import scan_file
from xr2ct.cohorts.pseudonyms import names_for
from xr2ct.store import Store, layout

TOKEN = "ZQXQZ"
UID = "1.2.826.0.1.777018777"
TEXT = {"PN", "LO", "SH", "ST", "LT", "UT", "UC", "CS", "AE", "UR", "DA", "TM", "DT", "UI"}
TOLD = {
    # What these say is a choice among words of the standard, and decides whether and how a picture is taken.
    "Modality",
    "SOPClassUID",
    "ImageType",
    "PhotometricInterpretation",
    "SpecificCharacterSet",
    "BodyPartExamined",
    "BurnedInAnnotation",
    "RescaleType",
    "LossyImageCompression",
    "PresentationLUTShape",
}
LEAKS = (
    rb"zqxqz\d\d",
    rb"777018777",
    rb"j.{1,2}rgqzx",
    rb"(?<![\d.])184[789][-/.]?(0[1-9]|1[0-2])[-/.]?([0-2]\d|3[01])(?!\d)",
    rb"(?<![\d.])([0-2]\d|3[01])[-/. ]?(0[1-9]|1[0-2])[-/. ]?184[789](?!\d)",
    rb"(?<![\d.])(0[1-9]|1[0-2])/([0-2]\d|3[01])/184[789](?!\d)",
    rb"[a-z]{3,9}\.? \d{1,2},? 184[789]|\d{1,2}\.? [a-z]{3,9}\.? 184[789]",
    rb"184[789]\d{4}2359",
    rb"(?<![\d.])23:?59:?\d\d\.777",
)
"""Of every token, in small letters: text, UIDs, a name beyond ASCII, dates in several spellings, times."""


class Planter:
    """Sets every text element of the dictionary, no two to the same value."""

    def __init__(self, year: int) -> None:
        self.year = year
        self.values: dict[str, str] = {}

    def value(self, keyword: str, vr: str) -> str:
        number = len(self.values)
        day = f"{self.year}{1 + number // 28 % 12:02d}{1 + number % 28:02d}"
        made = {
            "DA": day,
            "TM": f"2359{number % 60:02d}.777{number % 1000:03d}",
            "DT": f"{day}2359{number % 60:02d}.777000",
            "UI": f"{UID}.{self.year}.{number}",
            "PN": f"{TOKEN}{number:05d}^Jörgqzx",
            "UR": f"https://{TOKEN}{number:05d}.example/",
        }
        return self.values.setdefault(keyword, made.get(vr, f"{TOKEN}{number:05d}"))

    def plant(self, data: Dataset, index: int) -> None:
        """What a slice's dataset can hold; every element in a few slices, those that are read in all."""
        data.SpecificCharacterSet = "ISO_IR 192"
        data.preamble = TOKEN.encode() + b"00001" + bytes(118)
        data.file_meta.SourceApplicationEntityTitle = f"{TOKEN}00002"
        data.file_meta.PrivateInformationCreatorUID = f"{UID}.1"
        data.file_meta.PrivateInformation = f"{TOKEN}00003 ".encode()
        for tag, (vr, _, _, _, keyword) in DicomDictionary.items():
            group = tag >> 16
            if vr not in TEXT or keyword in TOLD or not 0x0008 <= group < 0x7FE0 or not keyword:
                continue
            if index % 20 and group not in (0x0008, 0x0010, 0x0018, 0x0020):
                continue
            data.add_new(tag, vr, self.value(keyword, vr))
        data.SOPInstanceUID = f"{self.values['SOPInstanceUID']}.{index}"
        data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
        inner = Dataset()
        inner.PatientName = f"{TOKEN}77777^Nested"
        inner.AccessionNumber = f"{TOKEN}77778"
        data.RequestAttributesSequence = Sequence([inner])
        data.OtherPatientIDsSequence = Sequence([inner])
        block = data.private_block(0x0009, f"{TOKEN}77779", create=True)
        for offset, vr in enumerate(("LO", "UT", "DA", "PN")):
            block.add_new(offset, vr, self.value(f"private {vr}", vr))
        block.add_new(9, "OB", f"{TOKEN}77780".encode())
        block.add_new(10, "UN", f"{TOKEN}77781".encode())


def plant(files: list[Path], planter: Planter, **elements: str) -> list[Path]:
    """Plant in files of one series; `elements` stay as they are said here."""
    for index, file in enumerate(files):
        data = pydicom.dcmread(file)
        planter.plant(data, index)
        for keyword, value in elements.items():
            setattr(data, keyword, value)
        data.save_as(file)
    return files


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six people in a folder with an innocent name: two who can be taken, and four ways of not being."""
    root = tmp_path_factory.mktemp("source")
    folder = root / f"{TOKEN}90001 Jörgqzx 18470531"
    person = {"PatientID": f"{TOKEN}80001", "PatientName": f"{TOKEN}80002^Jörgqzx"}
    plant(write_dicom(folder / f"{TOKEN}90002", chest(1), "x", "1.1"), Planter(1847), **person)
    pictures = {"one": 1, "burned": 2}
    for name, seed in pictures.items():
        path = folder / f"{TOKEN}90003 {name}.dcm"
        write_radiograph(path, seed, "x", f"1.9.{seed}")
        plant([path], Planter(1848), **person, SeriesInstanceUID=f"{UID}.9.{seed}")
    write_on(folder / f"{TOKEN}90003 burned.dcm", f"{TOKEN}80003 31.05.1847")
    second = {"PatientID": f"{TOKEN}80004", "StudyInstanceUID": f"{UID}.4"}
    for place, series in enumerate(("best", "spare", "localizer")):
        path = folder / f"{TOKEN}9001{place} {series}"
        hu = chest(4)[place:] if place < 2 else chest(4)[:2]
        more = {"SeriesInstanceUID": f"{UID}.4.{place}"}
        files = plant(write_dicom(path, hu, "x", f"1.4.{place}"), Planter(1849), **second, **more)
        if series == "best":
            spoil(files[2])
        if series == "localizer":
            for file in files:
                data = pydicom.dcmread(file)
                data.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER", f"{TOKEN}80005"]
                data.save_as(file)
    damaged = write_dicom(folder / f"{TOKEN}90020", chest(5), "x", "1.5")
    plant(damaged, Planter(1847), PatientID=f"{TOKEN}80006", SeriesInstanceUID=f"{UID}.5")
    damaged[1].write_bytes(damaged[1].read_bytes()[:400])
    nobody = write_dicom(folder / f"{TOKEN}90021", chest(6)[:20], "x", "1.6")
    plant(nobody, Planter(1847), PatientID="", SeriesInstanceUID=f"{UID}.6")
    other = write_dicom(folder / f"{TOKEN}90022", chest(7)[:3], "x", "1.7", Modality="PT")
    plant(other, Planter(1848), PatientID=f"{TOKEN}80007", SeriesInstanceUID=f"{UID}.7")
    write_mha(folder / f"{TOKEN}90023.mha", chest(8))
    write_mha(folder / f"{TOKEN}90024.mha", np.full((44, 40, 52), 40, np.int16))
    (folder / f"{TOKEN}90025.dcm").write_bytes(b"nothing")
    (folder / f"{TOKEN}90026.nii.gz").write_bytes(b"nothing")
    return root


def write_on(file: Path, text: str) -> None:
    """Draw text into a picture, as an old workstation does."""
    data = pydicom.dcmread(file)
    picture = Image.fromarray(data.pixel_array.astype(np.int32), mode="I")
    ImageDraw.Draw(picture).text((12, 12), text, fill=4095, font_size=18)
    data.PixelData = np.asarray(picture).astype("<u2").tobytes()
    data.save_as(file)


@pytest.fixture
def private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A cohort of a laboratory's own, and a home for its salt."""
    own = tmp_path / "own.yaml"
    own.write_text("hospital: {}\n")
    monkeypatch.setenv("XR2CT_COHORTS", str(own))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return "hospital"


def run(*words: object) -> None:
    """A command, as the user calls it."""
    assert main([str(word) for word in words]) == 0


def leaks(told: bytes) -> Iterator[str]:
    """Where bytes give a token away, as UTF-8 or UTF-16, in whichever letters."""
    for form in (told.lower(), told.lower().replace(b"\0", b"")):
        for pattern in LEAKS:
            for match in re.finditer(pattern, form):
                around = form[max(0, match.start() - 40) : match.end() + 40]
                yield f"{match.group()!r} in {around!r}"


def all_leaks(folder: Path) -> list[str]:
    """Of every file under a folder: its name and every byte; PLAN.scan has but its name."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() and path.suffix != ".scan" else b""
        found += [
            f"{path}: {leak}" for leak in leaks(str(path.relative_to(folder)).encode() + b"\n" + content)
        ]
    return found


def test_nothing_that_was_planted_comes_out(
    hospital: Path,
    private: str,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    store = out / "hospital.zarr"
    table = out / "PLAN.csv"
    options = [
        "--size",
        "16",
        "--cube-mm",
        str(CUBE_MM),
        "--angles",
        "0,90",
        "--splits",
        "test",
        "--workers",
        "2",
    ]
    into = ["--out", str(store), *options]
    with caplog.at_level(logging.DEBUG, logger="xr2ct"):
        run("plan", private, hospital, "--out", table, "--workers", 2)
        run("plan", private, hospital, "--out", table, "--json")
        run("ingest", private, table, *into, "--json")
        layout.chunk_file(store, "ct/16", 0).unlink()
        layout.plan_file(store).unlink()
        # From the folder, whose names and reasons are told too.
        run("ingest", private, hospital, *into, "--repair")
        run("inspect", store, "--verify", "--json", "--sheet", out / "sheet.png", "--page", out / "page.html")
        run("inspect", store)
        run("project", store, "--angles", "0", "--out", out / "x")
        for form in ("nifti", "mha", "x2ct"):
            run("export", store, "--to", out / form, "--format", form)
    said = capfd.readouterr()
    (out / "stdout").write_text(said.out)
    (out / "stderr").write_text(said.err)
    (out / "log").write_text(caplog.text)

    # It was a whole way: people in, radiographs in, the unreadable series and the burned-in picture out.
    opened = Store.open(store)
    assert len(opened.cases) == 3
    assert all(re.fullmatch(r"case-[0-9a-f]{12}", c.patient) for c in opened.cases)
    pictures = [p for c in opened.cases for p in opened.radiographs(c)]
    assert len(pictures) == 1
    refused = (store / "refused.csv").read_text()
    for reason in ("burned-in text", "pixels cannot be read", "no lungs found", "without PatientID"):
        assert reason in refused, refused
    assert len(table.read_text().splitlines()) >= 8

    assert all_leaks(out) == []
    assert stat.S_IMODE(scan_file(table).stat().st_mode) == 0o600
    # And a name is no plain hash of an identifier, which anybody with a list of numbers could find.
    text = b"".join(p.read_bytes() for p in out.rglob("*") if p.is_file() and p.suffix in (".json", ".csv"))
    for identifier in (f"{TOKEN}80001", f"{TOKEN}80004", f"{UID}.4", f"{UID}.4.1"):
        for kind in ("md5", "sha1", "sha256"):
            assert hashlib.new(kind, identifier.encode()).hexdigest()[:12].encode() not in text


def test_the_search_finds_what_leaks(tmp_path: Path) -> None:
    planter = Planter(1847)
    spellings = [
        planter.value("PatientName", "PN").encode(),
        planter.value("PatientID", "LO").encode("utf-16-le"),
        planter.value("Manufacturer", "LO").lower().encode("utf-16-be"),
        "Jörgqzx".encode("latin-1"),
        planter.value("SeriesInstanceUID", "UI").encode(),
        *(b"18470531", b"1847-05-31", b"31.05.1847", b"05/31/1848", b"May 31, 1849", b"31 may 1847"),
        planter.value("StudyTime", "TM").encode(),
        planter.value("AcquisitionDateTime", "DT").encode(),
    ]
    for number, told in enumerate(spellings):
        (tmp_path / f"{number}.bin").write_bytes(bytes(7) + b" " + told + b" " + bytes(9))
    assert len({leak.split(": ")[0] for leak in all_leaks(tmp_path)}) == len(spellings)
    (tmp_path / "innocent.json").write_text('{"a": 0.1847053112, "b": 31847053199}')
    assert not [leak for leak in all_leaks(tmp_path) if "innocent" in leak]


def test_names_hang_on_the_salt_alone(hospital: Path, private: str, tmp_path: Path) -> None:
    one, other = names_for(private), names_for(private, tmp_path / "other-salt")
    assert one == names_for(private)
    assert one.patient("A") != other.patient("A")
    assert one.salt_id != other.salt_id
    assert stat.S_IMODE((tmp_path / "other-salt").stat().st_mode) == 0o600
    secret = (tmp_path / "other-salt").read_text().strip()
    assert secret not in repr(other)
    with (tmp_path / "config/xr2ct/salt").open() as salt:
        assert next(csv.reader(salt)) != [secret]
