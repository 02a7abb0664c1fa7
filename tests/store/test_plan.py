"""Rows, names and identifiers, without any file being read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from xr2ct.cohorts.pseudonyms import Names, short_hash
from xr2ct.cohorts.series import Source
from xr2ct.errors import UserError
from xr2ct.ingest.plan import Key, Plan, row_key
from xr2ct.projection.geometry import NAMED
from xr2ct.store import StoreError
from xr2ct.store.layout import XraySet

HOSTILE = [
    "../x",
    "a/b",
    "a b",
    "a\nb",
    "",
    ".",
    "..",
    ".hidden",
    "-rf",
    "Doe^Jane",
    "é",
    "x" * 65,
    "a\0b",
    "\udcff",
]


def key(patient: str, series: str = "1.2.3") -> Key:
    return row_key(Source(patient, "1.2", series, "mha", (Path("x.mha"),)), Names(True))


def test_public_ids_stay() -> None:
    for patient in ("LIDC-IDRI-0001", "SYN-LIDC-0001", "LCTSC-Test-S1-101", "A.b_c-9"):
        assert Names(True).patient(patient) == patient


def test_hostile_ids_are_safe_unique_and_say_nothing(tmp_path: Path) -> None:
    names = [Names(True).patient(p) for p in HOSTILE]
    assert len(set(names)) == len(HOSTILE)
    for name in names:
        file = tmp_path / f"{name}.json"
        file.write_text("{}")
        assert file.resolve().parent == tmp_path.resolve()
        assert "Doe" not in name
    assert len(list(tmp_path.iterdir())) == len(HOSTILE)


def test_rows_stay_and_new_ones_follow() -> None:
    plan = Plan("lidc-idri", 320.0).with_cases({key("C"): "val", key("A"): "train"})
    assert [r.case for r in plan.rows] == ["A", "C"]
    grown = plan.with_cases({key("B"): "test", key("A"): "test", key("C", "9.9"): "test"})
    assert grown.rows[:2] == plan.rows
    assert [r.case for r in grown.rows[2:]] == ["B", f"C-{short_hash(short_hash('1.2'), short_hash('9.9'))}"]
    assert [r.split for r in grown.rows] == ["train", "val", "test", "val"]


def test_another_series_takes_a_row() -> None:
    plan = Plan("lidc-idri", 320.0).with_cases({key("A"): "train", key("A", "9"): "train", key("B"): "val"})
    one, other, b = plan.with_series(2, key("B", "7")).with_series(0, key("A", "8")).rows
    assert (b.case, b.key, b.split) == ("B", key("B", "7"), "val")
    assert (other, one.case) == (plan.rows[1], f"A-{short_hash(*key('A', '8')[1:])}")


def test_no_uid_is_in_the_plan(tmp_path: Path) -> None:
    plan = Plan("lidc-idri", 320.0).with_cases({key("A", "1.3.6.1.4.1.14519.5.2.1"): "train"})
    plan.save(tmp_path)
    text = (tmp_path / "plan.json").read_text()
    assert "1.3.6.1" not in text
    assert short_hash("1.3.6.1.4.1.14519.5.2.1") in text


def test_plan_reads_back(tmp_path: Path) -> None:
    xrays = XraySet(NAMED["x2ct"], (0.0, 90.0))
    plan = Plan("lctsc", 300.0, True, "0123456789ab").with_arrays(tmp_path, [128, 64], [xrays])
    plan = plan.with_cases({key("A"): "test"})
    plan.save(tmp_path)
    assert Plan.load(tmp_path) == plan
    assert plan.arrays == ("ct/64", "ct/128", "xray/x2ct")
    text = (tmp_path / "plan.json").read_text()
    (tmp_path / "plan.json").write_text(text.replace('"xr2ct_schema": 1', '"xr2ct_schema": 2'))
    with pytest.raises(UserError, match="schema 2"):
        Plan.load(tmp_path)
    (tmp_path / "plan.json").write_text(text[:-9])
    with pytest.raises(StoreError, match=r"plan\.json is damaged"):
        Plan.load(tmp_path)


def test_a_plan_of_before_there_were_salts_and_tables(tmp_path: Path) -> None:
    Plan("lctsc", 300.0).save(tmp_path)
    values = json.loads((tmp_path / "plan.json").read_text())
    del values["salt_id"], values["remove_table"]
    (tmp_path / "plan.json").write_text(json.dumps(values))
    assert Plan.load(tmp_path) == Plan("lctsc", 300.0)


def test_angles_of_a_geometry_are_added(tmp_path: Path) -> None:
    plan = Plan("lctsc", 300.0).with_arrays(tmp_path, [64], [XraySet(NAMED["x2ct"], (0.0, 90.0))])
    assert plan.with_arrays(tmp_path, [64], [XraySet(NAMED["x2ct"], (90.0,))]) == plan
    more = plan.with_arrays(tmp_path, [64], [XraySet(NAMED["x2ct"], (90.0, 180.0))])
    assert more.xrays == (XraySet(NAMED["x2ct"], (0.0, 90.0, 180.0)),)
