"""Cluster profiles: found by name or path, refused by key, and by keys that contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from launch.profiles import PROFILES, Profile, load_profile
from xr2ct.config import validate
from xr2ct.errors import UserError


@pytest.mark.parametrize("path", sorted(PROFILES.glob("*.yaml")), ids=lambda p: p.stem)
def test_every_shipped_profile_is_valid(path: Path) -> None:
    load_profile(path.stem)


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'local'"):
        load_profile("lokal")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("task_per_node: 2", "'task_per_node': did you mean 'tasks_per_node'"),
        ("evaluator: {every: 3}", r"'evaluator.every': did you mean 'every_min'"),
        ("container: {runtme: pyxis}", "'container.runtme': did you mean 'runtime'"),
    ],
)
def test_an_unknown_key_names_the_nearest(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(f"executor: local\n{text}\n")
    with pytest.raises(UserError, match=told):
        load_profile(str(path))


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"signal_lead_s": 600, "time_limit_min": 10}, "signal_lead_s .* must be below time_limit_min"),
        ({"gpus_per_node": 2, "tasks_per_node": 4}, "a rank needs a card of its own"),
        ({"container": {"runtime": "pyxis"}}, "runtime pyxis needs an image"),
        ({"container": {"runtime": "wrapper"}}, "needs its command in args"),
        ({"container": {"image": "x.sif"}}, "takes neither image nor mounts"),
        ({"container": {"runtime": "apptainer", "image": "x", "mounts": ["a,b"]}}, "without commas"),
        ({"submit_from": "login"}, "chain submits from within jobs, which submit_from: login forbids"),
        ({"sbatch": {"time": 3}}, "sbatch: time has a key of its own, time_limit_min"),
        ({"sbatch": {"--array": "0-3"}}, "sbatch: array is set by the kit"),
        ({"environment": {"A B": "1"}}, "'A B' is no variable's name"),
        ({"executor": "local", "partition": "x"}, "partition: of no use with executor: local"),
        ({"executor": "local", "nodes": 2}, "nodes: of no use with executor: local"),
        ({"executor": "local", "evaluator": {"schedule": "chain"}}, "evaluator.schedule: of no use"),
        ({"executor": "pbs"}, "executor"),
    ],
)
def test_keys_that_contradict_each_other_are_refused(keys: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        validate(Profile, {"executor": "slurm"} | keys, "mine.yaml")


def test_there_is_a_rank_a_card_unless_it_is_stated() -> None:
    assert validate(Profile, {"executor": "slurm", "gpus_per_node": 4, "nodes": 2}, "x").ranks == 8
    assert validate(Profile, {"executor": "slurm", "gpus_per_node": 4, "tasks_per_node": 1}, "x").ranks == 1


def test_slurm_has_a_chain_of_evaluators_and_this_machine_none_unless_it_is_stated() -> None:
    assert validate(Profile, {"executor": "slurm"}, "x").evaluator.schedule == "chain"
    assert validate(Profile, {"executor": "local"}, "x").evaluator.schedule == "off"
    watched = {"executor": "local", "evaluator": {"schedule": "watch"}}
    assert validate(Profile, watched, "x").evaluator.schedule == "watch"


def test_what_was_resolved_reads_back() -> None:
    profile = load_profile("gpu")
    assert validate(Profile, yaml.safe_load(yaml.safe_dump(profile.model_dump(mode="json"))), "x") == profile
