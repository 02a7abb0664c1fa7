"""The schema, as plain zarr sees it and as `Store` reads it."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import zarr

from xr2ct.errors import UserError
from xr2ct.projection.geometry import Geometry
from xr2ct.store import Store, StoreError, layout, write

SIZE = 16
XRAYS = layout.XraySet(Geometry("small", 541.0, 949.0, 500.0, pixels=24), (0.0, 90.0, 315.0))
SPLITS = {"A-1": "train", "A-2": "train", "B.7": "val", "C_9": "test"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A store of four cases; row 2 was planned and never written."""
    store = tmp_path / "a folder" / "lidc-idri.zarr"
    write.lay_out(store, "lidc-idri", 320.0, 5, [SIZE], [XRAYS])
    random = np.random.default_rng(0)
    visible = []
    for row, (case, split) in zip((0, 1, 3, 4), SPLITS.items(), strict=True):
        volume = random.integers(-1024, 3000, (SIZE,) * 3, dtype=np.int16)
        views = random.random((3, 24, 24), dtype=np.float32)
        checksums = {
            "ct/16": write.write_chunk(store, "ct/16", row, volume),
            "xray/small": write.write_chunk(store, "xray/small", row, views),
        }
        write.write_case(store, case, {"kernel": "B30f", "checksums": checksums})
        visible.append({"id": case, "patient": case, "split": split, "row": row})
    write.publish(store, visible, [SIZE], ["small"])
    return store


def test_plain_zarr_reads_the_same(folder: Path) -> None:
    group = zarr.open_group(folder, mode="r", zarr_format=3)
    store = Store.open(folder)
    ct, xray = group["ct/16"], group["xray/small"]
    assert isinstance(ct, zarr.Array)
    assert isinstance(xray, zarr.Array)
    assert ct.shape == (5, 16, 16, 16)
    assert ct.dtype == np.int16
    assert ct.metadata.dimension_names == ("case", "z", "y", "x")  # type: ignore[union-attr]
    assert xray.dtype == np.float32
    assert xray.metadata.dimension_names == ("case", "view", "row", "col")  # type: ignore[union-attr]
    geometry = {
        "sad_mm": 541.0,
        "sid_mm": 949.0,
        "detector_mm": 500.0,
        "pixels": 24,
        "angles_deg": [0, 90, 315],
    }
    assert geometry.items() <= xray.attrs.asdict().items()
    for case in store.cases:
        np.testing.assert_array_equal(store.volume(case, 16), ct[case.row])
        np.testing.assert_array_equal(store.xray(case, "small", (0, 90, 315)), xray[case.row])
    # A row that nobody wrote is no air to anybody.
    assert (np.asarray(ct[2]) == -32768).all()
    assert np.isnan(xray[2]).all()


def test_views_come_in_the_order_asked_for(folder: Path) -> None:
    store = Store.open(folder)
    case = store.cases[2]
    whole = store.xray(case, "small", store.angles("small"))
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(store.xray(case, "small", [-45, 0]), whole[[2, 0]])


def test_cases_and_splits(folder: Path) -> None:
    store = Store.open(folder)
    assert (store.cohort, store.cube_mm, store.sizes) == ("lidc-idri", 320.0, (16,))
    assert {c.id: c.split for c in store.cases} == SPLITS
    assert [c.row for c in store.cases] == [0, 1, 3, 4]
    assert [c.id for c in store.split("train")] == ["A-1", "A-2"]
    assert store.geometries == {"small": XRAYS.geometry}
    assert store.cases[0].attributes["kernel"] == "B30f"


def test_a_pickled_store_reads_on(folder: Path) -> None:
    store = Store.open(folder)
    again = pickle.loads(pickle.dumps(store))
    np.testing.assert_array_equal(again.volume(again.cases[0], 16), store.volume(store.cases[0], 16))


def test_wrong_requests_name_what_is_there(folder: Path) -> None:
    store = Store.open(folder)
    case = store.cases[0]
    with pytest.raises(UserError, match=r"size 64 \(valid: 16\)"):
        store.volume(case, 64)
    with pytest.raises(UserError, match="did you mean 'small'"):
        store.xray(case, "smal", [0])
    with pytest.raises(UserError, match=r"45° in xray/small \(valid: 0, 90, 315\)"):
        store.xray(case, "small", [45])
    with pytest.raises(UserError, match="did you mean 'train'"):
        store.split("trian")


@pytest.mark.parametrize(
    ("array", "damage"),
    [("ct/16", "flip"), ("ct/16", "cut"), ("ct/16", "gone"), ("xray/small", "flip"), ("xray/small", "gone")],
)
def test_damage_names_the_case(folder: Path, array: str, damage: str) -> None:
    store = Store.open(folder)
    hurt, sound = store.cases[2], store.cases[1]
    file = layout.chunk_file(folder, array, hurt.row)
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    if damage == "gone":
        file.unlink()
    else:
        file.write_bytes(content[:-2] if damage == "cut" else content)

    def read(case: object) -> np.ndarray:
        one = hurt if case is hurt else sound
        return store.volume(one, 16) if array == "ct/16" else store.xray(one, "small", [0])

    assert np.isfinite(read(sound)).all()
    with pytest.raises(StoreError, match=f"case B.7: its chunk of {array}"):
        read(hurt)


def test_a_chunk_lost_after_its_first_reading_is_no_air(folder: Path) -> None:
    store = Store.open(folder)
    case = store.cases[0]
    store.volume(case, 16)
    layout.chunk_file(folder, "ct/16", case.row).unlink()
    with pytest.raises(StoreError, match="case A-1"):
        store.volume(case, 16)


def test_a_case_without_its_file(folder: Path) -> None:
    layout.case_file(folder, "A-2").unlink()
    with pytest.raises(StoreError, match="case A-2"):
        Store.open(folder)


def test_checksum_is_of_the_data(folder: Path) -> None:
    before = Store.open(folder)
    wider = layout.XraySet(Geometry("wide", 541.0, 949.0, 600.0, pixels=8), (0.0,))
    write.lay_out(folder, "lidc-idri", 320.0, 5, [SIZE], [XRAYS, wider])
    for case in before.cases:
        chunk = write.write_chunk(folder, "xray/wide", case.row, np.zeros((1, 8, 8), np.float32))
        known = write.read_case(folder, case.id)
        known["checksums"]["xray/wide"] = chunk
        write.write_case(folder, case.id, known)
    visible = [{"id": c.id, "patient": c.patient, "split": c.split, "row": c.row} for c in before.cases]
    write.publish(folder, visible, [SIZE], ["small", "wide"])
    after = Store.open(folder)
    assert after.checksum() != before.checksum()
    assert after.checksum(16, "small") == before.checksum(16, "small")
    assert after.checksum(16, "wide") != after.checksum(16, "small")


def test_what_is_no_store(tmp_path: Path, folder: Path) -> None:
    with pytest.raises(UserError, match="not a store"):
        Store.open(tmp_path / "nothing")
    zarr.create_group(tmp_path / "other.zarr", zarr_format=3)
    with pytest.raises(UserError, match="not one that `xr2ct ingest` made"):
        Store.open(tmp_path / "other.zarr")
    empty = tmp_path / "planned.zarr"
    write.lay_out(empty, "lctsc", 320.0, 1, [SIZE], [XRAYS])
    with pytest.raises(UserError, match="no case is visible yet"):
        Store.open(empty)
    root = json.loads((folder / "zarr.json").read_text())
    root["attributes"]["xr2ct_schema"] = 99
    (folder / "zarr.json").write_text(json.dumps(root))
    with pytest.raises(UserError, match="schema 99, this version reads schema 1: ingest"):
        Store.open(folder)
    (folder / "zarr.json").write_text("{")
    with pytest.raises(StoreError, match=r"zarr\.json is damaged"):
        Store.open(folder)


def test_compressed_rows_are_not_read_as_raw(folder: Path) -> None:
    file = folder / "ct/16/zarr.json"
    metadata = json.loads(file.read_text())
    metadata["codecs"].append({"name": "zstd", "configuration": {"level": 1, "checksum": False}})
    file.write_text(json.dumps(metadata))
    with pytest.raises(UserError, match="ct/16 is not in uncompressed int16 chunks"):
        Store.open(folder)
