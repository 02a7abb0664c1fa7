"""Sweeps: one file, many experiments, each with the overrides that choose it."""

from __future__ import annotations

from pathlib import Path

import pytest

from xr2ct.config import load_experiment, load_members, run_path
from xr2ct.config_files import override_text, parse_override
from xr2ct.errors import UserError

TABLE1 = Path(__file__).parents[2] / "configs/paper/table1.yaml"


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "swept.yaml"
    path.write_text("name: swept\n" + text)
    return path


def test_the_papers_table_1_is_six_experiments_in_six_runs() -> None:
    members = load_members(TABLE1)
    assert [len(experiment.data.views) for experiment, _ in members] == [1, 2, 4, 8, 1, 1]
    assert [experiment.lift.kind for experiment, _ in members] == ["repeat"] * 4 + ["noise"] * 2
    assert all(experiment.training.steps == 5000 for experiment, _ in members)
    assert len({run_path(experiment, told) for experiment, told in members}) == 6


def test_every_combination_once_the_last_key_fastest(tmp_path: Path) -> None:
    path = written(tmp_path, "sweep: {seed: [1, 2], training.batch: [4, 8]}\n")
    chosen = [(e.seed, e.training.batch) for e, _ in load_members(path)]
    assert chosen == [(1, 4), (1, 8), (2, 4), (2, 8)]


def test_a_members_overrides_load_that_member_and_lead_to_the_same_run(tmp_path: Path) -> None:
    path = written(tmp_path, "sweep: {data.views: [[90], [90, 0]], mapper.name: ['a, b', 'yes', 'x']}\n")
    for experiment, told in load_members(path, ["seed=5"]):
        again = load_experiment(path, told)
        assert again == experiment
        assert run_path(again, told) == run_path(experiment, told)


def test_an_override_of_a_swept_key_chooses(tmp_path: Path) -> None:
    path = written(tmp_path, "sweep: {seed: [1, 2], training.batch: [4, 8]}\n")
    assert [(e.seed, told) for e, told in load_members(path, ["training.batch=16"])] == [
        (1, ["training.batch=16", "seed=1"]),
        (2, ["training.batch=16", "seed=2"]),
    ]


def test_a_file_without_a_sweep_is_one_experiment(tmp_path: Path) -> None:
    ((experiment, told),) = load_members(written(tmp_path, ""), ["seed=3"])
    assert (experiment.seed, told) == (3, ["seed=3"])


def test_loading_a_sweep_as_one_experiment_says_which_overrides_choose(tmp_path: Path) -> None:
    path = written(tmp_path, "sweep: {seed: [1, 2], training.batch: [4, 8]}\n")
    with pytest.raises(UserError, match=r"training\.batch: choose a member, as 'training\.batch=4'"):
        load_experiment(path, ["seed=1"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("sweep: {seed: []}", "seed: expected a list of values"),
        ("sweep: {seed: 3}", "seed: expected a list of values, got 3"),
        ("sweep: [seed]", "sweep: expected key.sub"),
        ("sweep: {data views: [1]}", "expected key.sub, got 'data views'"),
        ("sweep: {training.batchs: [4]}", r"training.batchs=4: unknown key 'training.batchs'.*'batch'"),
        ("sweep: {seed: [1], seed: [2]}", "key 'seed' twice"),
        ("sweep: {data: [{}], data.views: [[90]]}", "data.views is within data"),
        ("sweep: {seed: [1, 1]}", "its run would be .*, which is that of"),
        ("sweep: {seed: [1, x]}", "with seed=x: seed: "),
    ],
)
def test_a_wrong_sweep_is_refused_by_its_key(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UserError, match=told):
        load_members(written(tmp_path, text + "\n"))


@pytest.mark.parametrize(
    "value", [1, 1e-5, "a", "1e-5", "yes", "", None, [90, 0.5], {"a": [1]}, "x: y", "~", "é\n"]
)
def test_an_overrides_text_reads_back_as_its_value(value: object) -> None:
    assert parse_override(override_text("key.sub", value)) == ("key.sub", value)
