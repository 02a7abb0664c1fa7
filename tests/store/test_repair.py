"""A purged scratch: what is gone is never air, every loss is told, a repair brings the bytes back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from chest_volumes import CUBE_MM, SMALL, chest, spoil, write_dicom, write_mha, write_radiograph

from xr2ct.errors import UserError, WorkFailed
from xr2ct.ingest import IngestReport, ingest
from xr2ct.store import Case, Store, StoreError, layout
from xr2ct.store.check import damage

ROUNDS = 8


def run(source: Path, store: Path, **more: object) -> IngestReport:
    options = {"cube_mm": CUBE_MM, "splits": "seeded", "workers": 1, "angles": (0.0, 90.0), **more}
    return ingest(source, store, "lidc-idri", [16, 32], [SMALL], **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four patients and, between them, one whose scan is damaged and one whose better one is; radiographs."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(4):
        write_mha(folder / f"SYN-{number:04d}.mha", chest(number))
    spoil(write_dicom(folder / "b", chest(8), "SYN-0001b", "1.2.8")[2])
    spoil(write_dicom(folder / "c", chest(9), "SYN-0001c", "1.2.9")[2])
    write_dicom(folder / "d", chest(9)[:40], "SYN-0001c", "1.2.10", StudyInstanceUID="1.2.9.0")
    write_radiograph(folder / "x1.dcm", 1, "SYN-0001c", "1.2.11")
    write_radiograph(folder / "x2.dcm", 2, "SYN-0001c", "1.2.12")
    return folder


@pytest.fixture(scope="module")
def sound(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    store = tmp_path_factory.mktemp("sound") / "lidc-idri.zarr"
    run(source, store)
    return store


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Path:
    """A copy to be spoilt."""
    return Path(shutil.copytree(sound, tmp_path / "lidc-idri.zarr"))


def tree(store: Path) -> dict[str, bytes]:
    return {str(p.relative_to(store)): p.read_bytes() for p in store.rglob("*") if p.is_file()}


def purge(store: Path, random: np.random.Generator) -> set[str]:
    """Delete, spoil, or empty into zeros a random part of the files; what is no more as it was."""
    files = sorted(p for p in store.rglob("*") if p.is_file() and p.stat().st_size)
    chosen = random.random(len(files)) < random.choice([0.05, 0.3, 0.8, 1.0])
    for file, gone in zip(files, chosen, strict=True):
        if not gone:
            continue
        content = file.read_bytes()
        how = random.integers(3)
        if how == 0:
            file.unlink()
        else:
            file.write_bytes(bytes(len(content)) if how == 1 else content[: random.integers(len(content))])
    return {str(f.relative_to(store)) for f, gone in zip(files, chosen, strict=True) if gone}


def read_all(store: Path, expected: dict[str, np.ndarray]) -> list[str]:
    """Read every chunk that can be read, which must then be as it was; what was said of the others."""
    said = []
    try:
        opened = Store.open(store)
    except (StoreError, UserError) as error:
        return [str(error)]
    for case in opened.cases:
        for array in opened.arrays():
            size = int(array[3:]) if array.startswith("ct/") else 0
            try:
                found = opened.volume(case, size) if size else opened.xray(case, "small", (0.0, 90.0))
                np.testing.assert_array_equal(found, expected[f"{array} {case.id}"])
            except StoreError as error:
                assert f"case {case.id}" in str(error)
                said.append(str(error))
        try:
            for picture in opened.radiographs(case):
                np.testing.assert_array_equal(picture.pixels, expected[picture.name])
        except StoreError as error:
            assert f"case {case.id}" in str(error)
            said.append(str(error))
    return said


@pytest.fixture(scope="module")
def expected(sound: Path) -> dict[str, np.ndarray]:
    """Array and case → what the sound store holds."""
    store = Store.open(sound)
    ct = {f"ct/{s} {c.id}": store.volume(c, s) for c in store.cases for s in store.sizes}
    xrays = {f"xray/small {c.id}": store.xray(c, "small", (0.0, 90.0)) for c in store.cases}
    return ct | xrays | {p.name: p.pixels for c in store.cases for p in store.radiographs(c)}


@pytest.mark.parametrize("seed", range(ROUNDS))
def test_a_purged_scratch(
    source: Path, sound: Path, store: Path, expected: dict[str, np.ndarray], seed: int
) -> None:
    spoilt = purge(store, np.random.default_rng([11, seed]))
    said = read_all(store, expected)
    vital = {
        s for s in spoilt if s.startswith(("cases/", "ct/", "xray/", "radiograph/")) and "/c/" in s + "/c/"
    }
    assert said or not vital - {"ct/zarr.json", "xray/zarr.json", "radiograph/zarr.json"}
    if layout.is_remains(store):
        told = "\n".join(damage(store))
        unseen = {"refused.csv"} | {f for f in spoilt if f.startswith(("ct/", "xray/")) and "/c/" in f}
        for file in spoilt - unseen:
            if (store / file).is_file() and (store / file).read_bytes() == (sound / file).read_bytes()[:-1]:
                continue  # its last line's end alone is gone
            assert file in told or "zarr.json is missing" in told, file
    if layout.is_remains(store):
        run(source, store, repair=True)
    else:
        shutil.rmtree(store)
        run(source, store)
    assert tree(store) == tree(sound)
    assert damage(store) == []


def drop_plan(store: Path) -> None:
    layout.plan_file(store).unlink()


def drop_group(store: Path) -> None:
    (store / "zarr.json").write_bytes(bytes(700))


def drop_plan_and_group(store: Path) -> None:
    drop_plan(store)
    (store / "zarr.json").unlink()


def drop_plan_group_and_a_case(store: Path) -> None:
    drop_plan_and_group(store)
    layout.case_file(store, "SYN-0002").write_text('{"case": "SYN-')


def drop_what_xrays_are(store: Path) -> None:
    drop_plan(store)
    (store / "xray/small/zarr.json").unlink()


def zeros_for_a_volume(store: Path) -> None:
    chunk = layout.chunk_file(store, "ct/32", 3)
    chunk.write_bytes(bytes(chunk.stat().st_size))


@pytest.mark.parametrize(
    "spoil",
    [
        drop_plan,
        drop_group,
        drop_plan_and_group,
        drop_plan_group_and_a_case,
        drop_what_xrays_are,
        zeros_for_a_volume,
    ],
)
def test_each_loss_is_mended(
    source: Path, sound: Path, store: Path, spoil: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    spoil(store)
    assert damage(store)
    run(source, store, repair=True)
    assert tree(store) == tree(sound)
    assert "came out other than before" not in caplog.text


def opened(store: Path, case: str) -> tuple[Store, Case]:
    whole = Store.open(store)
    return whole, next(c for c in whole.cases if c.id == case)


def test_the_sound_store_is_as_planned(sound: Path) -> None:
    store, case = opened(sound, "SYN-0001c")
    assert [c.id for c in store.cases] == ["SYN-0000", "SYN-0001", "SYN-0001c", "SYN-0002", "SYN-0003"]
    assert [c.row for c in store.cases] == [0, 1, 3, 4, 5]
    assert [p.name for p in store.radiographs(case)] == ["SYN-0001c-01", "SYN-0001c-02"]
    refused = (sound / "refused.csv").read_text()
    assert refused.count("pixels cannot be read") == refused.count("SYN-0001c") + 1 == 2


def test_a_sound_store_is_left_alone(source: Path, store: Path) -> None:
    times = {p: p.stat().st_mtime_ns for p in (store / "ct").rglob("*")}
    assert run(source, store, repair=True).computed == 0
    assert times == {p: p.stat().st_mtime_ns for p in times}


def test_a_plain_ingest_does_not_guess_at_a_lost_plan(source: Path, store: Path) -> None:
    drop_plan(store)
    with pytest.raises(StoreError, match=r"plan\.json is missing.*--repair"):
        run(source, store)
    (store / "zarr.json").unlink()
    with pytest.raises(StoreError, match=r"zarr\.json and plan\.json are missing.*--repair"):
        run(source, store)


def test_a_source_that_is_not_the_same_any_more(
    source: Path, store: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    other = Path(shutil.copytree(source, tmp_path / "other"))
    write_mha(other / "SYN-0002.mha", chest(77))
    before, case = opened(store, "SYN-0002")
    xrays = before.xray(case, "small", (0.0, 90.0))
    layout.chunk_file(store, "ct/16", case.row).unlink()
    run(other, store, repair=True)
    assert "SYN-0002: written again, its ct/16 came out other than before: its source changed" in caplog.text
    # Not a volume of one scan beside the X-rays of another.
    after, case = opened(store, "SYN-0002")
    assert not np.array_equal(after.xray(case, "small", (0.0, 90.0)), xrays)
    assert damage(store) == []


def test_what_has_no_source_any_more_is_named(source: Path, store: Path, tmp_path: Path) -> None:
    fewer = Path(shutil.copytree(source, tmp_path / "fewer"))
    (fewer / "SYN-0002.mha").unlink()
    for row in (0, opened(store, "SYN-0002")[1].row):
        layout.chunk_file(store, "ct/16", row).unlink()
    with pytest.raises(
        WorkFailed, match=r"1 files are still missing or damaged(.|\n)*case SYN-0002: its chunk"
    ):
        run(fewer, store, repair=True)
    assert len(damage(store)) == 1


def test_what_is_not_to_be_repaired(source: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no store to repair"):
        run(source, tmp_path / "nothing", repair=True)


def test_lost_xrays_of_angles_that_the_call_does_not_name(source: Path, store: Path) -> None:
    drop_what_xrays_are(store)
    with pytest.raises(UserError, match=r"what its xray/small is was lost, but for its angles 0,90"):
        run(source, store, repair=True, angles=(0.0, 45.0))


def test_the_case_file_says_what_was_written(sound: Path) -> None:
    for file in (sound / "cases").iterdir():
        assert json.loads(file.read_text())["case"] == file.stem
