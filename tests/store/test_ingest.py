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
from chest_volumes import CUBE_MM, SMALL, chest, write_mha

from xr2ct import inspection
from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.reader import read_volume_file
from xr2ct.errors import UserError, WorkFailed
from xr2ct.ingest import IngestReport, ingest
from xr2ct.projection.geometry import EIGHT_ANGLES, Geometry
from xr2ct.store import Store, layout


def run(source: Path, store: Path, sizes: tuple[int, ...] = (16,), **more: object) -> IngestReport:
    options = {"cohort": "lidc-idri", "geometries": (SMALL,), "cube_mm": CUBE_MM, "workers": 2, **more}
    return ingest(source, store, sizes=sizes, **options)  # type: ignore[arg-type]


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
    assert inspection.verify(store) == []
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
    assert [(line["patient"], line["reason"]) for line in lines] == [("SYN-9999", "no lungs found")]
    store = Store.open(whole)
    assert "SYN-9999" not in {c.id for c in store.cases}
    # Its row is planned, and a hole that nobody takes for air.
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
    assert [r.patient for r in report.refused] == ["SYN-9999"]
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
    assert inspection.verify(after) == []
    with pytest.raises(UserError, match=r"3 of its cases need their source.*SYN-0000 \(ct/24\)"):
        run(more, store, (24,))
    assert Store.open(store).sizes == (16, 32)


def test_a_repaired_source_fills_its_row(few: Path, tmp_path: Path) -> None:
    store = tmp_path / "repaired.zarr"
    broken = few / "SYN-0001.mha"
    sound = broken.read_bytes()
    broken.write_bytes(sound[: len(sound) // 2])
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
    report = run(few, store, split_list=split_list)
    assert {c.id: c.split for c in Store.open(store).cases} == {"SYN-0000": "test", "SYN-0002": "train"}
    assert [(r.patient, r.reason) for r in report.left_out] == [("SYN-0001", f"not in {split_list}")]
    split_list.write_text("patient,split\nSYN-0000,train\nSYN-0002,train\n")
    with pytest.raises(UserError, match="SYN-0000 is in 'train' here and in 'test'"):
        run(few, store, split_list=split_list)
    split_list.write_text("patient,split\nSYN-0000,train\nSYN-0000,val\n")
    with pytest.raises(UserError, match="SYN-0000 is in train and in val"):
        run(few, tmp_path / "other.zarr", split_list=split_list)


def test_other_cohorts_are_for_testing_alone(few: Path, tmp_path: Path) -> None:
    run(few, tmp_path / "lctsc.zarr", cohort="lctsc")
    assert {c.split for c in Store.open(tmp_path / "lctsc.zarr").cases} == {"test"}


def test_an_existing_store_is_not_made_another(whole: Path, patients: Path) -> None:
    before = tree(whole)
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"cube_mm": 200.0}, r"its cube is 160 mm, asked for was 200 mm"),
        ({"cohort": "lctsc"}, r"holds cohort lidc-idri, asked for was lctsc"),
        ({"geometries": (Geometry("small", 600.0, 949.0, 500.0, 32),)}, r"sad 541 .* asked for was sad 600"),
        ({"angles": (10.0,)}, r"angles 0,45,.*asked for was .*angles 10:"),
    ]
    for wrong, told in wrongs:
        with pytest.raises(UserError, match=told):
            run(patients, whole, **wrong)
    assert tree(whole) == before


def test_wrong_requests(few: Path, tmp_path: Path) -> None:
    store = tmp_path / "s.zarr"
    with pytest.raises(UserError, match="expected a folder of CT, found nothing"):
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


def test_damage_is_verified_by_name(few: Path, tmp_path: Path) -> None:
    path = tmp_path / "hurt.zarr"
    run(few, path)
    store = Store.open(path)
    chunk = layout.chunk_file(path, "ct/16", store.cases[1].row)
    chunk.write_bytes(chunk.read_bytes()[::-1])
    layout.chunk_file(path, "xray/small", store.cases[2].row).unlink()
    first, second = inspection.verify(store)
    assert "case SYN-0001: its chunk of ct/16 differs from its checksum" in first
    assert "case SYN-0002: its chunk of xray/small cannot be read" in second


def test_inspect(whole: Path, tmp_path: Path) -> None:
    store = Store.open(whole)
    told = json.loads(json.dumps(inspection.summary(store)))
    assert told["cases"] == 12
    assert sum(map(len, told["splits"].values())) == 12
    assert told["bytes"]["ct/32"] == 12 * 2 * 32**3
    # The cube is smaller than the body, which the beam sees whole.
    assert 0.5 < told["body_outside_cube"]["median"] < 0.8
    assert told["body_outside_beam"]["small 90°"]["max"] < 0.05
    assert "12 cases of 12 patients" in inspection.format_summary(told)
    inspection.contact_sheet(store, tmp_path / "sheet.png")
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
