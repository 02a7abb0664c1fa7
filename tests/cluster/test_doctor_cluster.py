"""`doctor` on a real Slurm: all well on two nodes, and each thing that a profile can have wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from trials import Trials


def examine(trials: Trials, expect: int, **keys: Any) -> dict[str, dict[str, str]]:
    """Outcomes by check, with one rank on each of the two nodes."""
    profile = trials.profile("doctor", tasks_per_node=1, mem_gb=3, **keys)
    said = trials.bed.xr2ct(
        "doctor", "--cluster", profile, "--run-root", trials.run_root, "--json", expect=expect
    ).stdout
    return {outcome["check"]: outcome for outcome in json.loads(said)}


@pytest.mark.slow
def test_all_is_well_on_two_nodes(trials: Trials) -> None:
    found = examine(trials, expect=0, scratch=str(trials.folder / "scratch"), local_disk="/tmp")

    assert {name: o["outcome"] for name, o in found.items()} == {
        "python": "OK", "packages": "OK", "gpu": "SKIPPED", "dali": "OK", "rendezvous": "OK",
        "all-reduce": "OK", "scratch": "OK", "scratch locks": "OK", "run root": "OK", "between ranks": "OK",
        "clocks": "OK", "local disk": "OK", "mlflow": "SKIPPED", "signal": "OK", "requeue": "OK",
        "submit from": "OK",
    }  # fmt: skip
    assert found["all-reduce"]["told"].endswith("between n1, n2")
    assert not list((trials.run_root / ".doctor").iterdir())
    assert not list((trials.run_root / ".submissions").iterdir())


@pytest.mark.slow
def test_each_failure_names_the_key_that_mends_it(trials: Trials) -> None:
    """A GPU in name only, a scratch and a disk that cannot be written, a server that is not there."""
    environment = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "OMP_NUM_THREADS": "1"}
    found = examine(
        trials, expect=1, gpus_per_node=1, scratch="/proc/none", local_disk="/proc/none",
        environment=environment, submit_from="login", evaluator={"schedule": "watch"},
    )  # fmt: skip

    failed = {name: o["key"].split(",")[0] for name, o in found.items() if o["outcome"] == "FAILED"}
    assert failed == {
        "gpu": "gpus_per_node",
        "scratch": "scratch",
        "scratch locks": "scratch",
        "local disk": "local_disk",
        "mlflow": "environment: MLFLOW_TRACKING_URI",
    }
    assert {found[name]["outcome"] for name in ("dali", "rendezvous", "submit from")} == {"SKIPPED"}
    assert {found[name]["outcome"] for name in ("packages", "run root", "signal", "requeue")} == {"OK"}


@pytest.mark.slow
def test_an_interpreter_that_is_not_there_is_the_first_thing_told(trials: Trials) -> None:
    found = examine(trials, expect=1, python="/opt/none/bin/python")

    assert found["python"]["outcome"] == "FAILED" and found["python"]["key"].startswith("python")
    assert "/opt/none/bin/python" in found["python"]["told"]
    assert {o["outcome"] for name, o in found.items() if name != "python"} == {"SKIPPED"}
