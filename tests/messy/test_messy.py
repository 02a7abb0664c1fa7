"""Every mess once, in three cohorts: the plan takes what was planted to be taken, and the stores hold it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from xr2ct.cohorts.plan import plan_cohort
from xr2ct.errors import UserError

from .check import check_cohort, check_plan
from .messes import MESSES
from .tree import make_tree
from .truth import Truth, read_truth

COHORTS = ("lidc-idri", "covid-19-ny-sbu", "lctsc")
"""A scan a study; soft and early ones preferred; nothing thick, and no preference for what was acquired."""

Tree = tuple[Path, list[Truth]]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    folder = tmp_path_factory.mktemp("messy") / "tree"
    truth = make_tree(folder, len(MESSES), seed=1, workers=2, chests=2, cohorts=COHORTS)
    assert {line.mess for line in truth} == {mess.__name__.replace("_", " ") for mess in MESSES}
    assert read_truth(folder) == truth
    return folder, truth


@pytest.mark.slow
@pytest.mark.parametrize("cohort", COHORTS)
def test_every_mess_is_taken_as_it_was_planted(tree: Tree, tmp_path: Path, cohort: str) -> None:
    differences, report = check_cohort(tree[0], cohort, tree[1], tmp_path, workers=2)
    assert not differences, "\n".join(map(str, differences))
    assert len(report.kept) == sum(t.ingest == "kept" for t in tree[1] if _is_scan(t, cohort))


def _is_scan(line: Truth, cohort: str) -> bool:
    return line.cohort == cohort and line.plan in ("yes", "spare")


def test_the_check_sees_what_is_not_as_planted(tree: Tree) -> None:
    folder, truth = tree
    plan = plan_cohort(folder / COHORTS[0], COHORTS[0], workers=1)
    own = [line for line in truth if line.cohort == COHORTS[0]]
    assert check_plan(own, plan) == []
    taken = next(line for line in own if line.plan == "yes")
    for wrong in (replace(taken, plan="spare"), replace(taken, reason="because"), replace(taken, series="9")):
        changed = [wrong if line == taken else line for line in own]
        assert any(difference.truth == wrong for difference in check_plan(changed, plan))


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "x").touch()
    with pytest.raises(UserError, match="expected an empty folder"):
        make_tree(tmp_path, 1, 0)
