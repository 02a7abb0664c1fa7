"""The table of ways: paired with the mapper alone, of the best checkpoint's test splits."""

from __future__ import annotations

from pathlib import Path

import pytest
from made_study import BEST, made_run, put

from xr2ct.reporting.exhibits.ways import make_ways
from xr2ct.reporting.study import Study

TEST = ("lidc-idri", "test")


def test_what_each_way_brings_is_paired_by_patient(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run", {TEST: {"a": 20.0, "b": 24.0}, ("lctsc", "test"): {"c": 22.0}})
    put(run, f"{BEST}~refine-50", *TEST, {"a": 21.0, "b": 24.5})
    put(run, f"{BEST}~align-5+refine-50", *TEST, {"a": 19.0})
    put(run, f"{BEST}~refine-50", "lctsc", "test", {"c": 23.0})
    put(run, f"{BEST}~refine-50", "lidc-idri", "val", {"a": 1.0})
    put(run, f"{BEST}~without-90", *TEST, {"a": 1.0})
    put(run, "step-000250~refine-50", *TEST, {"a": 1.0, "b": 1.0})
    table = make_ways(Study.of([run]))
    assert table is not None
    told = [(r["cohort"], r["way"], r["patients"]) for r in table.rows]
    assert told == [
        ("lidc-idri", "align-5+refine-50", 1),
        ("lidc-idri", "refine-50", 2),
        ("lctsc", "refine-50", 1),
    ]
    assert [r["psnr_change"] for r in table.rows] == pytest.approx([-1.0, 0.75, 1.0])
    assert table.rows[1]["psnr"] == pytest.approx(22.75)


def test_the_mapper_alone_has_no_table(tmp_path: Path) -> None:
    assert make_ways(Study.of([made_run(tmp_path / "run", {TEST: {"a": 20.0}})])) is None
