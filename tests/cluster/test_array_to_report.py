"""One `submit`, and at the end a report: four runs over two nodes, trained, scored, the best one chosen."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path

import pytest
from bed import Bed, wait_until
from tiny import STEPS
from trials import TRAINING_CASES, Trials, Undisturbed, assert_same_run, write_store

from xr2ct.cohorts.names import COHORTS
from xr2ct.evaluation.pending import pending
from xr2ct.run import Run

STEPS_SCORED = [0, 6, STEPS]


@pytest.fixture(scope="module")
def seven_cohorts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seven")
    for cohort in COHORTS:
        write_store(folder, cohort, TRAINING_CASES if cohort == "lidc-idri" else {"test": 1})
    return folder


def scores(run: Run) -> dict[str, list[list[str]]]:
    """Every row of every result, as text."""
    return {
        str(path.relative_to(run.evaluations)): list(csv.reader(path.open(encoding="utf-8")))
        for path in sorted(run.evaluations.glob("*/*.csv"))
    }


@pytest.mark.slow
def test_four_members_from_submit_to_report(
    bed: Bed, tmp_path: Path, seven_cohorts: Path, without_dropout: Undisturbed
) -> None:
    trials = Trials(bed, tmp_path, seven_cohorts)
    profile = trials.profile(
        nodes=2, tasks_per_node=1, evaluator={"schedule": "chain", "every_min": 1, "time_limit_min": 20}
    )
    config = trials.config(
        "table",
        sweep={"mapper.sleep_s": [0.0, 0.01, 0.02, 0.03]},
        mapper={"dropout": 0.0},
        training={"checkpoint_every": 6},
    )
    members = trials.submit(config, profile)
    assert len({member.job.split("_")[0] for member in members}) == 1
    assert len(members) == 4
    trials.finish(*members, timeout_s=600)
    wait_until("no job is left", lambda: not bed.run("squeue", "--noheader").stdout, 900, every_s=2)

    for member in members:
        run = member.run
        assert run.steps() == STEPS_SCORED
        assert_same_run(run, without_dropout.run())
        assert not pending(run), member.said()
        results = {f"{cohort}-test.csv" for cohort in COHORTS} | {"lidc-idri-val.csv"}
        for step in STEPS_SCORED:
            folder = run.evaluations / f"step-{step:06d}"
            assert {path.name for path in folder.glob("*.csv")} == results
        assert run.best_step() in STEPS_SCORED

    # The same sweep by hand, from the same weights.
    by_hand = tmp_path / "by-hand"
    shutil.copytree(members[0].run.path, by_hand, symlinks=True)
    shutil.rmtree(by_hand / "evaluations")
    bed.xr2ct("evaluate", by_hand)
    assert scores(Run(by_hand)) == scores(members[0].run)

    (page,) = (trials.run_root / "report").glob("*.html")
    text = page.read_text(encoding="utf-8")
    for member in members:
        assert re.search(re.escape(member.run.path.name), text)
