"""The evaluator on a real Slurm: killed, doubled, its tracker stopped; scores as by hand."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.request import urlopen

import pytest
from bed import Bed, wait_until
from trials import TRAINING_CASES, Trials, write_store

from xr2ct.evaluation.pending import pending
from xr2ct.run import Run

COHORTS = {"lidc-idri": TRAINING_CASES, "lctsc": {"test": 2}, "anti-pd-1": {"test": 2}}
PAIRS = 4 * (3 + 3)
"""Of three checkpoints, the truth and two priors on four splits."""


@pytest.fixture(scope="module")
def trained(bed: Bed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three checkpoints on three cohorts, nothing of it scored; read only."""
    folder = tmp_path_factory.mktemp("trained")
    for cohort, splits in COHORTS.items():
        write_store(folder / "stores", cohort, splits)
    trials = Trials(bed, folder, folder / "stores")
    # Its dropout is random in evaluation too.
    config = trials.config(mapper={"dropout": 0.0}, training={"steps": 4, "checkpoint_every": 2})
    bed.xr2ct("train", config)
    return trials.run_root / "tiny"


@pytest.fixture(scope="module")
def by_hand(bed: Bed, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[list[str]]]:
    """What `xr2ct evaluate` makes of it."""
    copy = tmp_path_factory.mktemp("by-hand") / "tiny"
    shutil.copytree(trained, copy, symlinks=True)
    bed.xr2ct("evaluate", copy)
    found = scores(Run(copy))
    assert len(found) == PAIRS
    return found


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Run:
    """A copy that a test may evaluate."""
    shutil.copytree(trained, tmp_path / "runs" / "tiny", symlinks=True)
    return Run(tmp_path / "runs" / "tiny")


@pytest.fixture
def profile(trials: Trials) -> Path:
    return trials.profile(
        tasks_per_node=1, evaluator={"schedule": "watch", "every_min": 1, "task_min": 1, "time_limit_min": 10}
    )


def scores(run: Run) -> dict[str, list[list[str]]]:
    """Every row of every result, as text."""
    return {
        str(path.relative_to(run.evaluations)): list(csv.reader(path.open(encoding="utf-8")))
        for path in sorted(run.evaluations.glob("*/*.csv"))
    }


def slow_down(run: Run, seconds: float) -> None:
    """Every reconstruction of a checkpoint takes so long."""
    for step in run.steps():
        config = run.checkpoint(step) / "config.yaml"
        text = config.read_text(encoding="utf-8")
        config.write_text(re.sub(r"sleep_s: [\d.]+", f"sleep_s: {seconds}", text), encoding="utf-8")


def logs(run: Run) -> str:
    folder = run.path.parent / ".evaluator" / "logs"
    return "\n".join(log.read_text(encoding="utf-8") for log in sorted(folder.glob("*-rank-0.out")))


def committed(run: Run) -> Counter[str]:
    """How often each pair was committed, by what the scoring tasks said."""
    return Counter(re.findall(r"sweep: (\S+ (?:val|test): \S+), \d+ patients", logs(run)))


def round_of(bed: Bed, profile: Path, run: Run) -> str:
    return bed.xr2ct("evaluate", "--round", "--cluster", profile, run.path).stderr


def wait_for_tasks(bed: Bed, run: Run) -> None:
    arrays = run.path.parent / ".evaluator" / "arrays"
    for file in arrays.glob("[!.]*.json"):
        for job in json.loads(file.read_text(encoding="utf-8"))["ids"]:
            bed.wait_ended(job)


def watching(bed: Bed, profile: Path, run: Run) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "xr2ct.cli", "evaluate", "--watch", "--cluster", profile, run.path]
    return subprocess.Popen(
        list(map(str, command)),
        env=bed.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def assert_as_by_hand(run: Run, by_hand: dict[str, list[list[str]]]) -> None:
    assert scores(run) == by_hand, logs(run)
    assert not pending(run)
    assert not list(run.evaluations.glob(".claims/*"))
    assert not list(run.evaluations.glob("*/.*")), "nothing temporary stays"
    assert run.best_step() is not None
    assert (run.path.parent / "report" / "index.html").is_file()


def test_a_scoring_task_killed_in_the_middle_of_a_pair(
    bed: Bed, profile: Path, run: Run, by_hand: dict[str, list[list[str]]]
) -> None:
    slow_down(run, 3.0)
    round_of(bed, profile, run)
    (claim,) = wait_until(
        "a claim on a checkpoint", lambda: list(run.evaluations.glob(".claims/step-000004-*"))
    )
    told = json.loads(claim.read_text(encoding="utf-8"))
    os.kill(bed.rank_process(told["id"], 0), signal.SIGKILL)
    assert bed.wait_ended(told["id"]) == "FAILED"
    assert claim.exists(), "nobody but the evaluator takes a claim away"
    slow_down(run, 0.0)

    said = round_of(bed, profile, run)
    assert "tasks submitted" in said
    failed = list(run.evaluations.glob(".failed/*/*.json"))
    assert {json.loads(f.read_text(encoding="utf-8"))["job"] for f in failed} == {told["id"]}
    assert f"job {told['id']} ended, FAILED while it was scored" in failed[0].read_text(encoding="utf-8")
    assert claim.stem in {f.parent.name for f in failed}
    wait_for_tasks(bed, run)
    assert "0 pairs to score" in round_of(bed, profile, run)
    assert_as_by_hand(run, by_hand)
    assert max(committed(run).values()) == 1


def test_two_evaluators_at_once_and_one_killed(
    bed: Bed, profile: Path, run: Run, by_hand: dict[str, list[list[str]]]
) -> None:
    slow_down(run, 1.0)
    both = [watching(bed, profile, run) for _ in range(2)]
    wait_until("a claim", lambda: list(run.evaluations.glob(".claims/*.json")))
    both[0].kill()
    both[0].wait()
    said = both[1].communicate(timeout=600)[0]
    assert both[1].returncode == 0, said
    assert_as_by_hand(run, by_hand)
    assert committed(run) == Counter(dict.fromkeys(committed(run), 1))
    assert len(committed(run)) == PAIRS


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real one on localhost, answering."""
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", f"sqlite:///{folder}/server.db"]
    command += ["--artifacts-destination", (folder / "artifacts").as_uri()]
    with (folder / "server.log").open("ab") as said:
        server = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)

    def answers() -> bool:
        try:
            urlopen(f"{uri}/health", timeout=2).close()
        except OSError:
            assert server.poll() is None, (folder / "server.log").read_text(encoding="utf-8")
            return False
        return True

    try:
        wait_until("MLflow answers", answers, 180)
        yield uri
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_the_tracker_stopped_and_back(
    bed: Bed,
    profile: Path,
    run: Run,
    by_hand: dict[str, list[list[str]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = int(probe.getsockname()[1])
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    text = run.config_file.read_text(encoding="utf-8")
    text = re.sub(r"enabled: false\n  uri: null", f"enabled: true\n  uri: http://127.0.0.1:{port}", text)
    run.config_file.write_text(text, encoding="utf-8")

    round_of(bed, profile, run)
    wait_for_tasks(bed, run)
    said = round_of(bed, profile, run)
    assert f"MLflow at http://127.0.0.1:{port}: " in said
    assert_as_by_hand(run, by_hand)

    from mlflow import MlflowClient

    with mlflow_server(tmp_path, port) as uri:
        round_of(bed, profile, run)
        notes = json.loads((run.path / "mlflow.json").read_text(encoding="utf-8"))
        client = MlflowClient(uri)
        there = client.get_metric_history(notes["run_id"], "lctsc-test/honest/psnr")
        assert sorted(metric.step for metric in there) == run.steps()
        best = client.get_model_version_by_alias("tiny", "best")
        assert (best.tags["xr2ct.step"], best.run_id) == (str(run.best_step()), notes["run_id"])
        assert "was level" in bed.xr2ct("track", "sync", run.path).stdout
        assert len(client.search_model_versions("name = 'tiny'")) == 1
