"""Stores of synthetic chests that configurations ask for, made together and gone on with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xr2ct.config import Experiment, validate
from xr2ct.errors import Stopped, UserError
from xr2ct.ingest import phantoms
from xr2ct.ingest.phantoms import make_phantom_store, phantom_stores
from xr2ct.projection.geometry import EIGHT_ANGLES
from xr2ct.store import Store


def asking(stores: Path, patients: dict[str, int], flip: str = "patient", **data: Any) -> Experiment:
    values = {
        "name": "x",
        "data": {"stores": str(stores), "phantoms": patients, **data},
        "augmentation": {"flip": flip},
    }
    return validate(Experiment, values, "test")


def test_a_store_is_what_all_experiments_need_together(tmp_path: Path) -> None:
    patients = {"lctsc": 2, "lidc-idri": 7}
    wanted = phantom_stores(
        [
            asking(tmp_path, patients, size=32, views=[10]),
            asking(tmp_path, patients, size=64, geometry="chest-1800", views=[90], flip="none"),
        ]
    )
    tested, learnt = wanted
    assert (tested.cohort, tested.path) == ("lctsc", tmp_path / "lctsc.zarr")
    assert learnt.sizes == (32, 64) and [g.name for g in learnt.geometries] == ["chest-1800", "x2ct"]
    assert set(tested.angles) == {*EIGHT_ANGLES, 10.0}
    assert set(learnt.angles) == {*EIGHT_ANGLES, 10.0, 350.0}, "the mirrored view, for the patient's flip"
    assert set(tested.splits().values()) == {"test"}
    splits = list(learnt.splits().values())
    assert (len(splits), splits.count("val"), splits.count("test")) == (7, 1, 1)


def test_a_store_to_learn_from_has_the_volumes_that_poses_are_projected_from(tmp_path: Path) -> None:
    values = asking(tmp_path, {"lctsc": 2, "lidc-idri": 7}, size=128).model_dump()
    values["augmentation"]["pose"] |= {"turn_deg": 5, "reproject": 32}
    tested, learnt = phantom_stores([validate(Experiment, values, "test")])
    assert (tested.sizes, learnt.sizes) == ((128,), (32, 128))


def test_whoever_wants_another_store_under_the_same_name_is_refused(tmp_path: Path) -> None:
    few, many = ({"lidc-idri": n} for n in (4, 5))
    with pytest.raises(UserError, match="4 patients to learn from and for 5 patients"):
        phantom_stores([asking(tmp_path, few), asking(tmp_path, many)])
    with pytest.raises(UserError, match="unknown geometry"):
        phantom_stores([asking(tmp_path, few, geometry="x2tc")])


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The first patient's number of each lot that is written as DICOM, one patient a lot."""
    numbers: list[int] = []
    write = phantoms.write_cohort

    def counted(*arguments: Any, start: int, **keys: Any) -> list[Path]:
        numbers.append(start)
        return write(*arguments, start=start, **keys)

    monkeypatch.setattr(phantoms, "write_cohort", counted)
    monkeypatch.setattr(phantoms, "AT_ONCE", 1)
    return numbers


def stopping_at(call: int) -> Callable[[], None]:
    left = iter(range(call - 1))

    def going_on() -> None:
        if next(left, None) is None:
            raise Stopped("asked to stop")

    return going_on


def test_stopped_it_goes_on_at_the_patient_it_was_at(tmp_path: Path, written: list[int]) -> None:
    (wanted,) = phantom_stores([asking(tmp_path, {"lctsc": 2}, size=16)])
    with pytest.raises(Stopped):
        make_phantom_store(wanted, stopping_at(2), workers=1)
    assert written == [1] and wanted.missing
    assert [case.split for case in Store.open(wanted.path).cases] == ["test"]
    (other,) = phantom_stores([asking(tmp_path, {"lctsc": 2}, size=32)])
    with pytest.raises(UserError, match="begun for another configuration"):
        make_phantom_store(other, stopping_at(9), workers=1)
    make_phantom_store(wanted, stopping_at(9), workers=1)
    assert written == [1, 2] and not wanted.missing
    store = Store.open(wanted.path)
    assert [case.patient for case in store.cases] == ["SYN-LCTSC-0001", "SYN-LCTSC-0002"]
    assert set(store.angles("x2ct")) == set(EIGHT_ANGLES) and store.sizes == (16,)
    assert [p.name for p in tmp_path.iterdir()] == ["lctsc.zarr"], "nothing is left beside it"
    make_phantom_store(other, stopping_at(1), workers=1)
    assert written == [1, 2], "a whole store is left as it is, for training to say what it lacks"
