"""Who is learnt from is not tested on: by patient, by series, by the volume itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from xr2ct.errors import UserError
from xr2ct.store import Store, layout, write
from xr2ct.store.apart import check_apart

Line = tuple[str, str, str, int]
"""Patient, split, series, and what its volume is filled with."""


@pytest.fixture
def store(tmp_path):
    """Writes a store of cases without X-rays."""

    def make(cohort: str, *lines: Line, sizes: tuple[int, ...] = (16,)) -> Store:
        path = tmp_path / f"{cohort}.zarr"
        write.lay_out(path, cohort, 320.0, len(lines), sizes, [])
        rows = []
        for row, (patient, split, series, fill) in enumerate(lines):
            case = f"{patient}-{row}"
            sums = {}
            for size in sizes:
                values = np.full((size,) * 3, fill, np.int16)
                sums[f"ct/{size}"] = write.write_chunk(path, f"ct/{size}", row, values)
            write.write_case(path, case, {"checksums": sums, "series": series})
            rows.append({"id": case, "patient": patient, "split": split, "row": row})
        write.publish(path, rows, sizes, [])
        return Store.open(path)

    return make


LIDC: tuple[Line, ...] = (("A", "train", "s1", 1), ("B", "val", "s2", 2), ("C", "test", "s3", 3))


def test_cohorts_apart_pass(store):
    other = store("lctsc", ("D", "test", "t1", 11), ("A", "train", "s1", 1), ("C", "test", "s3", 3))
    check_apart(store("lidc-idri", *LIDC), [other])


@pytest.mark.parametrize(
    ("line", "why", "case"),
    [
        (("A", "test", "t9", 9), "the same patient", "A-0 in the train"),
        (("B", "test", "t9", 9), "the same patient", "B-1 in the val"),
        (("X", "test", "s1", 9), "the same series", "A-0 in the train"),
        (("X", "test", "t9", 2), "the same volume", "B-1 in the val"),
    ],
)
def test_one_on_both_sides_is_named(store, line, why, case):
    train, other = store("lidc-idri", *LIDC), store("lctsc", ("D", "test", "t1", 11), line)
    with pytest.raises(UserError) as error:
        check_apart(train, [other])
    for part in (why, case, "lidc-idri", "lctsc", f"{line[0]}-1", str(train.path), str(other.path)):
        assert part in str(error.value)
    assert str(error.value).count("\n") == 1


@pytest.mark.parametrize("splits", [("train", "val"), ("train", "test"), ("val", "test")])
def test_a_patient_in_two_splits_of_one_store(store, splits):
    lines = [("A", split, f"s{i}", i) for i, split in enumerate(splits)]
    with pytest.raises(UserError, match=rf"the same patient: .* {splits[0]} .* {splits[1]} split"):
        check_apart(store("lidc-idri", *lines))


def test_two_scans_of_a_patient_in_one_split_are_no_fault(store):
    check_apart(store("lidc-idri", *LIDC, ("A", "train", "s4", 4)))


def test_a_file_name_that_all_share_is_no_series(store):
    named = [("A", "train", "ct", 1), ("B", "test", "ct", 2)]
    check_apart(store("own-a", *named), [store("own-b", ("C", "test", "ct", 3), ("D", "test", "ct", 4))])


def test_volumes_are_compared_at_a_size_that_both_have(store):
    train = store("lidc-idri", *LIDC, sizes=(16, 32))
    check_apart(train, [store("spie-aapm", ("X", "test", "t", 1), sizes=(20,))])
    with pytest.raises(UserError, match="the same volume"):
        check_apart(train, [store("lctsc", ("X", "test", "t", 1), sizes=(20, 32))])


def test_all_are_counted_and_excluding_them_helps(store):
    train = store("lidc-idri", *LIDC)
    other = store("lctsc", ("A", "test", "t1", 11), ("B", "test", "t2", 12), ("D", "test", "t3", 13))
    with pytest.raises(UserError, match="2 such cases"):
        check_apart(train, [other])
    layout.exclude_file(other.path).write_text("case,reason\nA-0,twin\nB-1,twin\n")
    check_apart(train, [Store.open(other.path)])


def test_the_store_itself_among_the_others_is_no_twin(store):
    train = store("lidc-idri", *LIDC)
    check_apart(train, [Store.open(Path(train.path))])
