"""Volumes finer than the slices they come from: refused, left out or allowed, as told."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.store import Store
from xr2ct.store.layout import case_file
from xr2ct.training.start import training_cases


@pytest.fixture
def store(make_store: Callable[..., Store], tmp_path: Path) -> Store:
    """Voxels of 20 mm, and slices 5 to 25 mm apart; those of the last case are not known."""
    path = make_store(16, folder=tmp_path).path
    for case, spacing in enumerate((5.0, 20.0, 20.5, 25.0)):
        file = case_file(path, f"case{case}")
        file.write_text(json.dumps(json.loads(file.read_text()) | {"spacing_mm": [spacing, 0.7, 0.7]}))
    return Store.open(path)


def _experiment(**data: Any) -> Experiment:
    return Experiment(name="test", data={"size": 16, **data})


def test_refused_unless_told_otherwise(store: Store) -> None:
    with pytest.raises(UserError) as refused:
        training_cases(_experiment(), store)
    told = str(refused.value)
    assert "data.size 16 is finer (20 mm) than the slices of 2 of 5 cases (as case3, 25 mm)" in told
    assert "data.finer_than_source: leave_out or allow" in told


def test_left_out_and_allowed(store: Store) -> None:
    for rule, expected in (
        ("leave_out", ["case0", "case1", "case4"]),
        ("allow", [f"case{i}" for i in range(5)]),
    ):
        cases = training_cases(_experiment(finer_than_source=rule), store)
        assert [case.id for case in cases] == expected


def test_subsets_are_drawn_of_those_that_are_fine_enough(store: Store) -> None:
    cases = training_cases(_experiment(finer_than_source="leave_out", train_cases=3), store)
    assert {case.id for case in cases} == {"case0", "case1", "case4"}
    with pytest.raises(UserError, match="3 cases in the training split, expected 4"):
        training_cases(_experiment(finer_than_source="leave_out", train_cases=4), store)
