"""An ingest in parts: the same store as in one piece, whichever job dies, and nobody done twice."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from chest_volumes import CUBE_MM, SMALL, chest, write_dicom

from xr2ct.cohorts.pseudonyms import names_for
from xr2ct.errors import Stopped, Superseded, UserError, WorkFailed
from xr2ct.ingest import ingest, journal, lease, parts
from xr2ct.ingest.command import begun, fulfil
from xr2ct.ingest.journal import Journal
from xr2ct.ingest.lease import Lease, folder_of, private_folder
from xr2ct.ingest.plan import Row
from xr2ct.ingest.request import Request
from xr2ct.ingest.task import Outcome, Task
from xr2ct.store import layout

TOKEN = "this submission"


def asked(source: Path, store: Path, **other: object) -> Request:
    request = Request(
        source, store, "lidc-idri", (16,), (SMALL,), cube_mm=CUBE_MM, splits="seeded", workers=2
    )
    return replace(request, **other)  # type: ignore[arg-type]


def submit(request: Request, jobs: int) -> int:
    """What the front door does, but for the jobs; how many parts there are."""
    with begun(request, lambda held: False) as (job, wish, tasks):
        cut = [tasks[first::jobs] for first in range(jobs)]
        parts.write(request, job, wish, cut)
        lease.write(request.store, Lease(TOKEN, "devcluster", jobs=("1_0", "2_0")))
    return parts.count(request.store)


def tree(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in sorted(store.rglob("*")) if p.is_file()}


@contextmanager
def lost(file: Path) -> Iterator[None]:
    """A file that the system cannot read meanwhile, as on a disk that is away."""
    aside = file.with_suffix(".aside")
    file.rename(aside)
    file.symlink_to(file)
    yield
    file.unlink()
    aside.rename(file)


@pytest.fixture
def dicom(tmp_path: Path) -> Path:
    """Three patients as DICOM series."""
    for number in range(3):
        patient = f"SYN-{number:04d}"
        write_dicom(tmp_path / "source" / patient, chest(number), patient, f"1.2.{number + 1}")
    return tmp_path / "source"


def test_parts_make_the_store_that_one_command_makes(patients: Path, tmp_path: Path) -> None:
    whole = asked(patients, tmp_path / "whole.zarr")
    expected = fulfil(whole, lambda held: False)
    store = tmp_path / "parts.zarr"
    assert submit(asked(patients, store), 3) == 3
    private = private_folder(store)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    for number in (0, 2):  # the second member died before it began
        parts.work_part(store, TOKEN, number, 1)
    report = parts.finish(store, TOKEN, 2)
    assert tree(store) == tree(whole.store)
    assert (report.refused, report.left_out) == (expected.refused, expected.left_out)
    assert report.computed == expected.computed == 12
    assert not private.exists(), "identifiers were left behind"
    assert not lease.lease_file(store).exists()
    told = json.loads((folder_of(store) / "report.json").read_text())
    assert len(told["kept"]) == 12 and len(told["refused"]) == 2
    assert "12 cases kept (12 computed now)" in (folder_of(store) / "report.txt").read_text()
    again = fulfil(asked(patients, store), lambda held: False)
    assert again.computed == 0


def test_a_patient_that_failed_once_is_tried_again_and_one_that_failed_twice_is_told(
    dicom: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store.zarr"
    submit(asked(dicom, store), 1)
    with lost(dicom / "SYN-0001" / "007.dcm"):
        with lost(dicom / "SYN-0000" / "003.dcm"):
            parts.work_part(store, TOKEN, 0, 2)
        report = parts.finish(store, TOKEN, 2)
    assert sorted(report.kept) == ["SYN-0000", "SYN-0002"]
    (refused,) = report.refused
    assert refused.patient == "SYN-0001"
    assert refused.reason.endswith("cannot be read (Too many levels of symbolic links), twice")
    assert "twice" in layout.refused_file(store).read_text()
    assert len(fulfil(asked(dicom, store), lambda held: False).kept) == 3
    ingest(
        dicom, tmp_path / "w.zarr", "lidc-idri", [16], [SMALL], cube_mm=CUBE_MM, splits="seeded", workers=2
    )
    ours, theirs = tree(store), tree(tmp_path / "w.zarr")
    assert ours.pop("refused.csv") == b"patient,series,reason\n"
    assert ours == theirs


def test_what_a_job_did_is_not_done_again(
    dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "store.zarr"
    submit(asked(dicom, store), 1)
    run, tried = parts.run_tasks, []

    def two_alone(tasks, *rest, **keywords):
        tried.append([task.row.case for task in tasks])
        yield from run(tasks[:2], *rest, **keywords)
        os.kill(os.getpid(), signal.SIGUSR1)

    monkeypatch.setattr(parts, "run_tasks", two_alone)
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(Stopped, match="SIGUSR1"):
        parts.work_part(store, TOKEN, 0, 1)
    assert signal.getsignal(signal.SIGUSR1) == before
    monkeypatch.setattr(parts, "run_tasks", run)
    written = {f: f.stat().st_mtime_ns for f in layout.case_files(store)}
    assert len(written) == 2
    report = parts.finish(store, TOKEN, 1)
    assert len(report.kept) == report.computed == 3
    assert {f: f.stat().st_mtime_ns for f in written} == written


def test_only_the_latest_submission_may_write(dicom: Path, tmp_path: Path) -> None:
    store = tmp_path / "store.zarr"
    submit(asked(dicom, store), 1)
    with pytest.raises(Superseded):
        parts.work_part(store, "an earlier one", 0, 1)
    with pytest.raises(Superseded):
        parts.finish(store, "an earlier one", 1)
    asked_of: list[tuple[str, ...]] = []

    def living(held: Lease) -> bool:
        asked_of.append(held.jobs)
        return True

    with pytest.raises(WorkFailed, match=r"wait for 1 2, or end them: `scancel 1 2`"):
        fulfil(asked(dicom, store), living)
    with pytest.raises(WorkFailed, match="filling it"):
        ingest(dicom, store, "lidc-idri", [16], [SMALL], cube_mm=CUBE_MM, splits="seeded")
    assert asked_of == [("1_0", "2_0")]
    assert len(fulfil(asked(dicom, store), lambda held: False).kept) == 3
    assert not private_folder(store).exists()


def test_the_salt_is_read_where_it_lies_and_must_be_the_same(
    dicom: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cohorts, salt = tmp_path / "own.yaml", tmp_path / "salt"
    cohorts.write_text("hospital:\n")
    salt.write_text("5ecret" * 8)
    monkeypatch.setenv("XR2CT_COHORTS", str(cohorts))
    store = tmp_path / "hospital.zarr"
    submit(asked(dicom, store, cohort="hospital", salt=salt), 1)
    for file in folder_of(store).rglob("*"):
        assert not file.is_file() or b"5ecret5ecret" not in file.read_bytes()
    salt.write_text("another secret" * 4)
    with pytest.raises(UserError, match="another salt"):
        parts.work_part(store, TOKEN, 0, 1)
    salt.write_text("5ecret" * 8)
    parts.work_part(store, TOKEN, 0, 2)
    parts.finish(store, TOKEN, 1)
    for file in (*folder_of(store).rglob("*"), *store.rglob("*")):
        assert not file.is_file() or b"SYN-000" not in file.read_bytes()


@pytest.mark.parametrize(
    ("cases", "workers", "most", "sizes"),
    [(0, 4, 100, []), (5, 4, 100, [5]), (33, 4, 100, [17, 16]), (1000, 4, 3, [334, 333, 333])],
)
def test_parts_are_worth_a_job_and_not_too_many(
    cases: int, workers: int, most: int, sizes: list[int]
) -> None:
    tasks = _tasks(cases)
    cut = parts.cut(tasks, workers, most)
    assert [len(part) for part in cut] == sizes
    assert sorted(task.index for part in cut for task in part) == list(range(cases))


def _tasks(count: int) -> list[Task]:
    rows = [Row(f"case-{n}", f"p-{n}", "study", "series", "test") for n in range(count)]
    return [Task(Path("store"), n, row, None, names_for("lidc-idri"), 320.0) for n, row in enumerate(rows)]


def test_a_journal_knows_what_a_process_died_at(tmp_path: Path) -> None:
    tasks = _tasks(6)
    first, second, third = (Journal(tmp_path, name) for name in ("0000", "0000", "finish"))
    for task in tasks[:5]:
        first.begun(task)
    kept = Outcome(pictures=2, changed=("ct/16",), seconds=1.5, peak_bytes=7)
    first.ended(tasks[0], kept)
    first.ended(tasks[1], Outcome("cannot be read", failed=True))  # and dies at 2, 3 and 4
    second.begun(tasks[2])
    second.begun(tasks[3])
    second.ended(tasks[3], Outcome("too few slices"))  # and dies at 2
    third.begun(tasks[4])
    third.begun(tasks[5])
    third.stopped()
    next(tmp_path.glob("finish*")).open("a").write('{"begun": 5')
    found = journal.read(tmp_path)
    assert found[0].settled == kept
    assert (found[1].settled, found[1].tries) == (None, 1)
    assert found[2].settled == Outcome("its job died at it, twice")
    assert found[3].settled == Outcome("too few slices")
    assert (found[4].settled, found[4].tries) == (None, 1)
    assert 5 not in found or found[5].tries == 0
