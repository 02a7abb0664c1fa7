"""Ingest on small real volumes, with real worker processes."""

from __future__ import annotations

import csv
import fcntl
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from chest_volumes import CUBE_MM, SMALL, chest, spoil, write_dicom, write_mha, write_radiograph

from xr2ct import inspection
from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.pseudonyms import short_hash
from xr2ct.cohorts.reader import read_volume_file
from xr2ct.errors import UserError, WorkFailed
from xr2ct.ingest import IngestReport, ingest
from xr2ct.projection.geometry import EIGHT_ANGLES, Geometry
from xr2ct.store import Store, StoreError, layout, write
from xr2ct.store.check import damage


def run(source: Path, store: Path, sizes: tuple[int, ...] = (16,), **more: object) -> IngestReport:
    options = {"cohort": "lidc-idri", "geometries": (SMALL,), "cube_mm": CUBE_MM, "splits": "seeded", **more}
    return ingest(source, store, sizes=sizes, **{"workers": 2, **options})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def whole(patients: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everything in `patients`, by four processes writing at once."""
    store = tmp_path_factory.mktemp("whole") / "lidc-idri.zarr"
    report = run(patients, store, (16, 32), workers=4)
    assert (len(report.kept), report.computed) == (12, 12)
    return store


@pytest.fixture
def few(patients: Path, tmp_path: Path) -> Path:
    """A source of three patients of its own."""
    folder = tmp_path / "three"
    folder.mkdir()
    for number in range(3):
        shutil.copy(patients / f"SYN-{number:04d}.mha", folder)
    return folder


def tree(store: Path) -> dict[str, bytes]:
    """Every file of a store by its path in it."""
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def test_four_writers_at_once(whole: Path, patients: Path) -> None:
    store = Store.open(whole)
    assert [c.id for c in store.cases] == [f"SYN-{n:04d}" for n in range(12)]
    assert store.sizes == (16, 32)
    assert store.angles("small") == EIGHT_ANGLES
    assert {name: len(store.split(name)) for name in ("train", "val", "test")}["train"] == 10
    assert damage(whole) == []
    group = zarr.open_group(whole, mode="r")
    for case in store.cases:
        native = read_volume_file(patients / f"{case.id}.mha")
        expected = canonical_cubes(native, [16, 32], CUBE_MM)
        for size in (16, 32):
            np.testing.assert_array_equal(group[f"ct/{size}"][case.row], expected.cubes[size])  # type: ignore[index]
        assert case.attributes["cube_centre_mm"] == list(expected.centre_mm)
        assert case.attributes["body_outside_cube"] == pytest.approx(expected.body_outside_cube)


def test_xrays_are_projected_from_the_fine_cube(whole: Path, patients: Path) -> None:
    torch = pytest.importorskip("torch")
    from xr2ct.projection.projector import attenuation, project

    store = Store.open(whole)
    case = store.cases[4]
    cube = canonical_cubes(read_volume_file(patients / f"{case.id}.mha"), [round(CUBE_MM)], CUBE_MM)
    mu = attenuation(torch.from_numpy(cube.cubes[round(CUBE_MM)]))[None]
    expected = project(mu, (1.0, 1.0, 1.0), SMALL, EIGHT_ANGLES)[0].numpy()
    np.testing.assert_allclose(store.xray(case, "small", EIGHT_ANGLES), expected, rtol=1e-4, atol=1e-4)


def test_what_is_refused_is_listed_while_the_rest_is_kept(whole: Path) -> None:
    with (whole / "refused.csv").open() as file:
        lines = list(csv.DictReader(file))
    told = "002.dcm: pixels cannot be read (truncated or damaged)"
    assert [line["patient"] for line in lines] == ["SYN-8888", "SYN-9999"]
    assert (lines[0]["reason"], lines[1]["reason"]) == ("no lungs found", told)
    store = Store.open(whole)
    assert {c.id for c in store.cases}.isdisjoint({"SYN-8888", "SYN-9999"})
    # What only a reading could tell has a row, and it is a hole that nobody takes for air.
    ct = zarr.open_array(whole / "ct/16", mode="r")
    assert ct.shape[0] == 13
    assert (np.asarray(ct[12]) == -32768).all()


def test_the_same_command_again_computes_nothing(whole: Path, patients: Path, tmp_path: Path) -> None:
    store = tmp_path / "copy.zarr"
    shutil.copytree(whole, store)
    before = tree(store)
    report = run(patients, store, (16, 32))
    assert (len(report.kept), report.computed) == (12, 0)
    assert report.kept["SYN-0003"].outside_cube == Store.open(store).cases[3].attributes["body_outside_cube"]
    assert json.loads(json.dumps(report.as_dict()))["kept"]["SYN-0003"]["outside_beam"]["small"].keys() >= {
        "0",
        "45",
    }
    assert "12 cases kept (0 computed now)" in str(report)
    assert [r.patient for r in report.refused] == ["SYN-8888", "SYN-9999"]
    assert tree(store) == before


def test_a_size_and_a_geometry_later(few: Path, tmp_path: Path) -> None:
    store, at_once = tmp_path / "later.zarr", tmp_path / "at-once.zarr"
    wide = Geometry("wide", 541.0, 949.0, 700.0, pixels=16)
    run(few, store)
    times = {p: p.stat().st_mtime_ns for p in (store / "ct/16/c").rglob("*") if p.is_file()}
    first = Store.open(store)
    assert run(few, store, (32,), geometries=(wide,)).computed == 3
    assert times == {p: p.stat().st_mtime_ns for p in times}
    second = Store.open(store)
    assert second.sizes == (16, 32)
    assert set(second.geometries) == {"small", "wide"}
    assert second.checksum(16, "small") == first.checksum(16, "small")
    run(few, at_once, (16, 32), geometries=(SMALL, wide))
    assert tree(store) == tree(at_once)


def test_patients_later_get_rows_after_the_others_and_every_array(few: Path, tmp_path: Path) -> None:
    store, more = tmp_path / "grows.zarr", tmp_path / "more"
    run(few, store, (16, 32))
    before = Store.open(store)
    write_mha(more / "SYN-0000b.mha", chest(100))
    write_mha(more / "ZZZ.mha", np.full((44, 40, 52), 40, np.int16))
    report = run(more, store, (16,), geometries=(), seed=5)
    assert list(report.kept) == ["SYN-0000b"]
    after = Store.open(store)
    assert after.cases[:3] == before.cases
    assert (after.cases[3].id, after.cases[3].row) == ("SYN-0000b", 3)
    assert after.volume(after.cases[3], 32).shape == (32, 32, 32)
    assert damage(store) == []
    with pytest.raises(UserError, match=r"3 of its cases need their source.*SYN-0000 \(ct/24\)"):
        run(more, store, (24,))
    assert Store.open(store).sizes == (16, 32)


def test_a_repaired_source_fills_its_row(few: Path, tmp_path: Path) -> None:
    store = tmp_path / "repaired.zarr"
    (few / "SYN-0001.mha").unlink()
    broken = write_dicom(few / "series", chest(1), "SYN-0001", "1.2.1")[2]
    sound = broken.read_bytes()
    spoil(broken)
    report = run(few, store)
    assert [r.patient for r in report.refused] == ["SYN-0001"]
    assert [c.row for c in Store.open(store).cases] == [0, 2]
    broken.write_bytes(sound)
    assert run(few, store).computed == 1
    assert [c.row for c in Store.open(store).cases] == [0, 1, 2]
    assert (store / "refused.csv").read_text() == "patient,series,reason\n"


def test_splits_by_list(few: Path, tmp_path: Path) -> None:
    store, split_list = tmp_path / "listed.zarr", tmp_path / "splits.csv"
    split_list.write_text("patient,split\nSYN-0000,test\nSYN-0002,train\nELSE,val\n")
    report = run(few, store, splits=split_list)
    assert {c.id: c.split for c in Store.open(store).cases} == {"SYN-0000": "test", "SYN-0002": "train"}
    left_out = [(r.patient, r.reason) for r in report.left_out]
    assert left_out == [("SYN-0001", "its patient is in none of the splits")]
    split_list.write_text("patient,split\nSYN-0000,train\nSYN-0002,train\n")
    with pytest.raises(UserError, match="SYN-0000 is in 'train' here and in 'test'"):
        run(few, store, splits=split_list)
    split_list.write_text("patient,split\nSYN-0000,train\nSYN-0000,val\n")
    with pytest.raises(UserError, match="line 3: its patient is in train above and in val here"):
        run(few, tmp_path / "other.zarr", splits=split_list)
    split_list.write_text("patient,split\nELSE,train\n")
    with pytest.raises(UserError, match=r"lists none of the 3 patients found; give --splits seeded.*CSV"):
        run(few, tmp_path / "other.zarr", splits=split_list)


def test_the_cohorts_own_splits(few: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"splits lidc-idri: lists none .* give --splits seeded"):
        run(few, tmp_path / "s.zarr", splits=None)
    (few / "SYN-0002.mha").rename(few / "LIDC-IDRI-0442.mha")
    report = run(few, tmp_path / "s.zarr", splits=None)
    assert list(report.kept) == ["LIDC-IDRI-0442"]


def test_everybody_tests(few: Path, tmp_path: Path) -> None:
    run(few, tmp_path / "lctsc.zarr", cohort="lctsc", splits="test")
    assert {c.split for c in Store.open(tmp_path / "lctsc.zarr").cases} == {"test"}


def test_an_existing_store_is_not_made_another(whole: Path, patients: Path) -> None:
    before = tree(whole)
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"cube_mm": 200.0}, r"its cube is 160 mm, asked for was 200 mm"),
        ({"cohort": "lctsc"}, r"holds cohort lidc-idri, asked for was lctsc"),
        ({"geometries": (Geometry("small", 600.0, 949.0, 500.0, 32),)}, r"sad 541 .* asked for was sad 600"),
        ({"remove_table": True}, r"with the table under the patient, asked for was without"),
    ]
    for wrong, told in wrongs:
        with pytest.raises(UserError, match=told):
            run(patients, whole, **wrong)
    assert tree(whole) == before


def test_wrong_requests(few: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    with pytest.raises(UserError, match=r"expected a folder of CT or a PLAN\.csv, found nothing"):
        run(tmp_path / "none", store)
    with pytest.raises(UserError, match="lies inside the source"):
        run(few, few / "store.zarr")
    with pytest.raises(UserError, match=r"not a store, yet it holds SYN-0000\.mha"):
        run(_empty(tmp_path), few)
    with pytest.raises(UserError, match="size 8"):
        run(few, store, (8,))
    with pytest.raises(UserError, match="each once"):
        run(few, store, angles=(0.0, 360.0))
    with pytest.raises(UserError, match=r"geometry '\.\./x'"):
        run(few, store, geometries=(Geometry("../x", 541.0, 949.0, 500.0),))
    with pytest.raises(UserError, match="did you mean 'lidc-idri'"):
        run(few, store, cohort="lidc")
    with pytest.raises(UserError, match="workers 0"):
        run(few, store, workers=0)


def _empty(tmp_path: Path) -> Path:
    (tmp_path / "empty").mkdir()
    return tmp_path / "empty"


def test_one_ingest_at_a_time(few: Path, tmp_path: Path) -> None:
    store = tmp_path / "busy.zarr"
    store.mkdir()
    with (store / ".ingest.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(WorkFailed, match="another ingest is writing into it"):
            run(few, store)


def test_rubbish(tmp_path: Path) -> None:
    rubbish, store = tmp_path / "rubbish", tmp_path / "s.zarr"
    (rubbish / "patient 1").mkdir(parents=True)
    (rubbish / "patient 1" / "notes.txt").write_text("nothing here")
    (rubbish / "patient 1" / "scan.mha").write_bytes(b"not an image")
    (rubbish / "slice.dcm").write_bytes(bytes(1000))
    with pytest.raises(WorkFailed, match="no case could be kept") as failed:
        run(rubbish, store)
    assert str(store / "refused.csv") in str(failed.value)
    assert len((store / "refused.csv").read_text().splitlines()) > 1
    # The same folder takes a sound source afterwards.
    write_mha(rubbish / "SYN-1.mha", chest(1))
    assert run(rubbish, store).kept.keys() == {"SYN-1"}


def test_a_spare_takes_the_row_of_an_unreadable_scan(few: Path, tmp_path: Path) -> None:
    store, study = tmp_path / "spare.zarr", {"StudyInstanceUID": "1.2.70"}
    broken = write_dicom(few / "best", chest(7), "SYN-0001b", "1.2.7", **study)[2]
    sound = broken.read_bytes()
    spoil(broken)
    write_dicom(few / "second", chest(7)[1:], "SYN-0001b", "1.2.8", **study)
    write_dicom(few / "third", chest(7)[2:], "SYN-0001b", "1.2.9", **study)
    report = run(few, store)
    assert "SYN-0001b" in report.kept
    told = "002.dcm: pixels cannot be read (truncated or damaged)"
    assert [(r.patient, r.series, r.reason) for r in report.refused] == [
        ("SYN-0001b", short_hash("1.2.7"), told)
    ]
    assert [r.series for r in report.left_out] == [short_hash("1.2.9")]
    case = next(c for c in Store.open(store).cases if c.id == "SYN-0001b")
    assert (case.attributes["series"], case.attributes["slices"]) == (short_hash("1.2.8"), 43)
    assert json.loads((store / "plan.json").read_text())["rows"][2]["series"] == short_hash("1.2.8")
    before = tree(store)
    again = run(few, store)
    assert (again.refused, again.computed, tree(store)) == (report.refused, 0, before)
    # Whole again, the better scan comes too late for this store, which says so.
    broken.write_bytes(sound)
    assert run(few, store).computed == 0
    assert tree(store) == before


def test_killed_while_a_spare_was_read(few: Path, tmp_path: Path) -> None:
    store, study = tmp_path / "spare.zarr", {"StudyInstanceUID": "1.2.70"}
    spoil(write_dicom(few / "best", chest(7), "SYN-0001b", "1.2.7", **study)[2])
    write_dicom(few / "second", chest(7)[1:], "SYN-0001b", "1.2.8", **study)
    run(few, store)
    before = tree(store)
    layout.case_file(store, "SYN-0001b").unlink()
    assert run(few, store).computed == 1
    assert tree(store) == before


def test_radiographs_come_along_and_later(few: Path, tmp_path: Path) -> None:
    store = tmp_path / "radiographs.zarr"
    write_dicom(few / "ct", chest(7), "P-7", "1.2.7", StudyDate="20200229")
    write_dicom(few / "later", chest(8), "P-7", "1.2.8", StudyDate="20200329")
    write_radiograph(few / "a.dcm", 1, "P-7", "1.2.101", StudyDate="20200303")
    write_radiograph(few / "nobody.dcm", 2, "P-8", "1.2.102")
    report = run(few, store)
    assert report.radiographs == 1
    assert ("P-8", "radiograph") in {(r.patient, r.reason.split()[0]) for r in report.left_out}
    opened = Store.open(store)
    scans = {c.attributes["series"]: c for c in opened.cases if c.patient == "P-7"}
    first, second = scans[short_hash("1.2.7")], scans[short_hash("1.2.8")]
    (picture,) = opened.radiographs(first)
    assert opened.radiographs(second) == []
    assert picture.name == f"{first.id}-01"
    assert (picture.pixels.shape, picture.pixels.dtype) == ((400, 320), np.uint16)
    assert (picture.attributes["days_after_ct"], picture.attributes["view"]) == (3, "PA")
    assert "2020" not in layout.case_file(store, first.id).read_text()
    array = zarr.open_array(store / f"radiograph/{picture.name}", mode="r")
    np.testing.assert_array_equal(np.asarray(array), picture.pixels)
    # Another comes; nothing else is touched.
    times = {p: p.stat().st_mtime_ns for p in store.rglob("*") if p.is_file() and "/c/" in str(p)}
    write_radiograph(few / "b.dcm", 3, "P-7", "1.2.103", StudyDate="20200327", ViewPosition="LL")
    write_radiograph(few / "c.dcm", 4, "P-7", "1.2.104", StudyDate="", ViewPosition="AP")
    write_radiograph(few / "hand.dcm", 5, "P-7", "1.2.105", BodyPartExamined="HAND")
    again = run(few, store)
    assert again.radiographs == 3
    assert short_hash("1.2.105") in {r.series for r in again.refused}
    assert times == {p: p.stat().st_mtime_ns for p in times}
    opened = Store.open(store)
    days = {
        p.name: (p.attributes["view"], p.attributes["days_after_ct"])
        for c in opened.cases
        for p in opened.radiographs(c)
    }
    assert days == {
        f"{first.id}-01": ("PA", 3),
        f"{second.id}-01": ("LL", -2),
        f"{min(first.id, second.id)}-02": ("AP", None),
    }
    before = tree(store)
    assert run(few, store).computed == 0
    assert tree(store) == before
    layout.radiograph_file(store, f"{first.id}-01").write_bytes(bytes(400 * 320 * 2))
    with pytest.raises(StoreError, match=rf"case {first.id}: its radiograph {first.id}-01 differs"):
        Store.open(store).radiographs(first)


def test_angles_later(few: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, at_once = tmp_path / "later.zarr", tmp_path / "at-once.zarr"
    run(few, store, angles=(0.0, 90.0))
    run(few, at_once, angles=(0.0, 90.0, 45.0))
    before = {p: p.stat().st_mtime_ns for p in (store / "ct/16/c").rglob("*") if p.is_file()}
    # Killed between any two of its steps it leaves no old view under a new name.
    for step in ("lay_out", "sweep"):
        with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
            stopped.setattr(write, step, _interrupt)
            run(few, store, angles=(45.0,))
        with pytest.raises(UserError, match="no X-rays of geometry 'small'"):
            Store.open(store).angles("small")
    with monkeypatch.context() as stopped, pytest.raises(KeyboardInterrupt):
        stopped.setattr("xr2ct.ingest.command.fill_scans", _interrupt)
        run(few, store, angles=(45.0,))
    assert run(few, store, angles=(45.0,)).computed == 3
    assert Store.open(store).angles("small") == (0.0, 90.0, 45.0)
    assert tree(store) == tree(at_once)
    assert before == {p: p.stat().st_mtime_ns for p in before}


def test_more_angles_need_every_source(few: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    run(few, store, angles=(0.0,))
    before = tree(store)
    (few / "SYN-0001.mha").unlink()
    with pytest.raises(UserError, match=r"SYN-0001 \(xray/small\)"):
        run(few, store, angles=(90.0,))
    assert tree(store) == before


def _interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_time_and_memory_are_told(whole: Path, patients: Path, tmp_path: Path) -> None:
    report = run(patients, tmp_path / "s.zarr")
    assert report.cost is not None
    assert 0 < report.cost.seconds_median <= report.cost.seconds_max
    assert 1e7 < report.cost.peak_bytes_median <= report.cost.peak_bytes_max < 4e9
    assert "GB (median), at most" in str(report)
    assert "peak" not in (tmp_path / "s.zarr/cases/SYN-0001.json").read_text()


def test_damage_is_verified_by_name(few: Path, tmp_path: Path) -> None:
    path = tmp_path / "hurt.zarr"
    run(few, path)
    store = Store.open(path)
    chunk = layout.chunk_file(path, "ct/16", store.cases[1].row)
    chunk.write_bytes(chunk.read_bytes()[::-1])
    layout.chunk_file(path, "xray/small", store.cases[2].row).unlink()
    first, second = damage(path)
    assert "case SYN-0001: its chunk of ct/16 differs from its checksum" in first
    assert "case SYN-0002: its chunk of xray/small cannot be read" in second


def test_inspect(whole: Path, tmp_path: Path) -> None:
    store = Store.open(whole)
    told = json.loads(json.dumps(inspection.summary(store)))
    assert told["cases"] == 12
    assert sum(map(len, told["splits"].values())) == 12
    assert told["bytes"]["ct/32"] == 12 * 2 * 32**3
    # The cube is smaller than the body, which the beam sees whole.
    assert 0.3 < told["body_outside_cube"]["median"] < 0.6
    assert told["body_outside_beam"]["small 90°"]["max"] < 0.05
    assert "12 cases of 12 patients" in inspection.format_summary(told)
    inspection.contact_sheet(store, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
