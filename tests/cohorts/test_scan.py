"""A folder's files are walked and read once, whatever happens to the process and lies there."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from xr2ct.cohorts import scan_files
from xr2ct.cohorts.processes import spread
from xr2ct.cohorts.scan_files import refresh
from xr2ct.cohorts.scan_index import ScanIndex
from xr2ct.cohorts.scan_series import group
from xr2ct.errors import UserError


def write_headers(folder: Path, patient: str = "P-1", slices: int = 20) -> list[Path]:
    """A series of headers without pixels, in no time."""
    folder.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    data.SOPClassUID, data.Modality, data.PatientID = CTImageStorage, "CT", patient
    data.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    data.StudyInstanceUID, data.SeriesInstanceUID = f"1.2.{len(patient)}", f"1.2.{len(patient)}.1"
    data.Rows = data.Columns = 64
    data.PixelSpacing, data.ImageOrientationPatient = [5, 5], [1, 0, 0, 0, 1, 0]
    paths = []
    for index in range(slices):
        data.SOPInstanceUID = meta.MediaStorageSOPInstanceUID = f"1.2.3.{index + 1}"
        data.ImagePositionPatient = [-150, -130, 5 * index]
        paths.append(folder / f"{index:04d}")
        data.save_as(paths[-1], enforce_file_format=True)
    return paths


@pytest.fixture
def read(monkeypatch) -> list[Path]:
    """Every file that is read from here on."""
    paths: list[Path] = []
    real = scan_files.read_file

    def noted(path: Path):
        paths.append(path)
        return real(path)

    monkeypatch.setattr(scan_files, "read_file", noted)
    return paths


def scanned(root: Path, index: Path | None, workers: int | None = 1) -> list[tuple[str, int]]:
    with ScanIndex.open(index, root) as held:
        refresh(held, workers)
        return [(s.patient, len(s.files)) for s in group(held).sources]


def test_an_unchanged_file_is_never_read_again(tmp_path, read):
    index = tmp_path / "PLAN.scan"
    write_headers(tmp_path / "tree" / "a", "A")
    files = write_headers(tmp_path / "tree" / "b", "BB")
    assert scanned(tmp_path / "tree", index) == [("A", 20), ("BB", 20)]
    assert len(read) == 40
    assert scanned(tmp_path / "tree", index) == [("A", 20), ("BB", 20)]
    assert len(read) == 40

    os.utime(files[3], ns=(1, 1))
    files[4].unlink()
    write_headers(tmp_path / "tree" / "c", "CCC")
    assert scanned(tmp_path / "tree", index) == [("A", 20), ("BB", 19), ("CCC", 20)]
    assert len(read) == 61
    assert index.stat().st_mode & 0o777 == 0o600


def test_killed_it_continues_where_it_was(tmp_path, read):
    tree, index = tmp_path / "tree", tmp_path / "PLAN.scan"
    write_headers(tree / "a", "A", 120)
    slow = f"""
import time
from pathlib import Path
from xr2ct.cohorts import scan_files
from xr2ct.cohorts.scan_index import ScanIndex
real = scan_files.read_file
scan_files.BATCH = 5
scan_files.read_file = lambda path: (time.sleep(0.02), real(path))[1]
with ScanIndex.open(Path({str(index)!r}), Path({str(tree)!r})) as held:
    scan_files.refresh(held, 1)
"""
    process = subprocess.Popen([sys.executable, "-c", slow], stderr=subprocess.DEVNULL)
    while process.poll() is None and kept(index) < 20:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = kept(index)
    assert 20 <= before < 120

    assert scanned(tree, index) == [("A", 120)]
    assert len(read) == 120 - before


def kept(index: Path) -> int:
    try:
        with sqlite3.connect(f"file:{index}?mode=ro", uri=True) as database:
            return database.execute("SELECT count(*) FROM files WHERE kind IS NOT NULL").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


def test_processes_read_the_same(tmp_path, monkeypatch):
    for number in range(3):
        write_headers(tmp_path / str(number), "P" * (number + 1), 30)
    (tmp_path / "0" / "broken.dcm").write_bytes(b"DICM")
    alone = scanned(tmp_path, None)
    monkeypatch.setattr(scan_files, "FEW", 0)
    monkeypatch.setattr(scan_files, "BATCH", 16)
    assert scanned(tmp_path, None, workers=2) == alone == [("PP", 30), ("PPP", 30)]


def die_on_three(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number * number


def test_a_process_that_dies_takes_nothing_with_it():
    done = dict(spread(die_on_three, range(12), 2))
    assert done == {n: None if n == 3 else n * n for n in range(12)}


def test_loops_pipes_and_dangling_links_end(tmp_path):
    files = write_headers(tmp_path / "real", "A")
    (tmp_path / "real" / "loop").symlink_to(tmp_path)
    (tmp_path / "again").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "self").symlink_to(tmp_path / "real" / "self")
    os.mkfifo(tmp_path / "real" / "pipe.dcm")
    (tmp_path / ".snapshot").mkdir()
    (tmp_path / ".snapshot" / "copy").write_bytes(files[0].read_bytes())
    with ScanIndex.open(None, tmp_path) as held:
        refresh(held)
        found = group(held)
    assert found.sources == []
    assert [(r.patient, r.where) for r in found.refusals] == [("A", "self")]
    assert "cannot be read" in found.refusals[0].reason

    (tmp_path / "real" / "self").unlink()
    assert scanned(tmp_path, None) == [("A", 20)]


def test_what_could_not_be_opened_is_tried_again(tmp_path, monkeypatch):
    tree, index = tmp_path / "tree", tmp_path / "PLAN.scan"
    files = write_headers(tree, "A")
    opened: Callable = Path.open

    def closed(path, *args, **kwargs):
        if path.name == files[7].name:
            raise PermissionError(13, "Permission denied")
        return opened(path, *args, **kwargs)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "open", closed)
        assert scanned(tree, index) == []
    assert scanned(tree, index) == [("A", 20)]


def test_names_of_any_bytes(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/na\xff\xc3\n 'me"))
    write_headers(folder, "A")
    with ScanIndex.open(tmp_path / "PLAN.scan", tmp_path) as held:
        refresh(held)
        (source,) = group(held).sources
    assert source.files[0].parent == folder
    assert pydicom.dcmread(source.files[0]).PatientID == "A"


def test_an_index_is_of_one_folder(tmp_path):
    index = tmp_path / "PLAN.scan"
    write_headers(tmp_path / "a", "A")
    (tmp_path / "b").mkdir()
    scanned(tmp_path / "a", index)
    with pytest.raises(UserError, match=r"the index of .*a, asked for was .*b"):
        scanned(tmp_path / "b", index)
    index.write_text("something else that is no database at all, and long enough to be looked at")
    with pytest.raises(UserError, match="no index of a scan"):
        scanned(tmp_path / "a", index)
    index.unlink()
    with sqlite3.connect(index) as database:
        database.execute("CREATE TABLE accounts(name)")
    with pytest.raises(UserError, match="something else"):
        scanned(tmp_path / "a", index)
    with pytest.raises(UserError, match="no such folder"):
        scanned(tmp_path / "nowhere", None)
