"""MLflow followed, away, locked, hanging, stopped midway, and brought level; no step waits for it."""

from __future__ import annotations

import json
import os
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from xr2ct.config import Experiment, dump
from xr2ct.errors import Stopped, Superseded, WorkFailed
from xr2ct.run import Run
from xr2ct.tracking import Tracker, bring_level, live, sync, track_artifact
from xr2ct.tracking.link import parameters
from xr2ct.tracking.notes import read_notes

STEPS = 6


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outages of seconds, where they are of minutes in a laboratory."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(live, "POLL_S", 0.1)
    monkeypatch.setattr(live, "LONGEST_PAUSE_S", 1.0)
    monkeypatch.setattr(live, "CLOSING_S", 120.0)  # the machine may be busy


MakeRun = Callable[..., tuple[Run, Experiment]]


@pytest.fixture
def make_run(tmp_path: Path) -> MakeRun:
    def make(name: str = "run", **tracking: Any) -> tuple[Run, Experiment]:
        experiment = Experiment(
            name=name.partition("+")[0],
            run_root=tmp_path / "runs",
            training={"steps": STEPS, "warmup_steps": 1},
            tracking={"system_metrics": False, **tracking},
        )
        run = Run(experiment.run_root / name)
        run.path.mkdir(parents=True)
        run.config_file.write_text(dump(experiment), encoding="utf-8")
        return run, experiment

    return make


def write_steps(run: Run, first: int, last: int) -> None:
    with run.metrics_file.open("a", encoding="utf-8") as file:
        for step in range(first, last + 1):
            record = {"step": step, "seconds": 0.5, "loss/mapper": 1 / step, "lr/mapper": 1e-4}
            file.write(json.dumps(record) + "\n")
            file.flush()


def client(uri: str) -> Any:
    from mlflow import MlflowClient

    return MlflowClient(uri)


def history(run: Run, key: str) -> list[tuple[int, float]]:
    notes = read_notes(run)
    there = client(notes["uri"]).get_metric_history(notes["run_id"], key)
    return sorted((m.step, m.value) for m in there)


def expected(last: int = STEPS) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in range(1, last + 1)]


def test_followed_on_sqlite(make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run, experiment = make_run()
    with Tracker(run, experiment):
        write_steps(run, 1, STEPS)
    assert caplog.records == []
    assert history(run, "loss/mapper") == expected()
    notes = read_notes(run)
    assert notes["uri"] == f"sqlite:///{tmp_path}/runs/mlflow.db"
    there = client(notes["uri"]).get_run(notes["run_id"])
    assert there.info.status == "FINISHED"
    assert there.info.run_name == "run"
    assert there.info.artifact_uri.startswith((tmp_path / "runs" / "mlartifacts").as_uri())
    assert there.data.params["training.steps"] == str(STEPS)
    assert there.data.params["data.views"] == "[90.0, 0.0]"


def test_resumed_run_goes_on_in_its_own(make_run: MakeRun) -> None:
    """Steps after the last checkpoint come twice; MLflow keeps the first telling of each."""
    run, experiment = make_run()
    with pytest.raises(RuntimeError), Tracker(run, experiment):
        write_steps(run, 1, 4)
        raise RuntimeError
    first = read_notes(run)
    status = client(first["uri"]).get_run(first["run_id"]).info.status
    run.metrics_file.write_text("".join(run.metrics_file.read_text().splitlines(keepends=True)[:2]))
    with Tracker(run, experiment):
        write_steps(run, 3, STEPS)
    assert status == "FAILED"
    assert read_notes(run) == first
    assert history(run, "loss/mapper") == expected()
    assert client(first["uri"]).get_run(first["run_id"]).info.status == "FINISHED"


def test_a_lost_answer_makes_no_second_run(make_run: MakeRun) -> None:
    """Killed after MLflow made the run and before that was noted: it is found by its key."""
    run, _ = make_run()
    write_steps(run, 1, 2)
    before = sync(run)
    notes = read_notes(run)
    (run.path / "mlflow.json").write_text(json.dumps({"key": notes["key"]}))
    after = sync(run)
    assert after.run_id == before.run_id
    assert after.metrics == 0


def test_system_metrics(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "1")
    run, experiment = make_run(system_metrics=True)
    with Tracker(run, experiment):
        write_steps(run, 1, STEPS)
        deadline = time.monotonic() + 100
        while not read_notes(run).get("run_id") and time.monotonic() < deadline:
            time.sleep(0.1)
        time.sleep(4)
    assert history(run, "system/cpu_utilization_percentage")
    assert history(run, "loss/mapper") == expected()


def test_twice_level(make_run: MakeRun) -> None:
    run, _ = make_run()
    write_steps(run, 1, STEPS)
    evaluate(run, 3)
    report = sync(run)
    assert report.metrics == 3 * STEPS
    assert report.evaluations == 4
    assert history(run, "lidc-idri-val/honest/psnr") == [(3, 21.0)]
    assert history(run, "prior-mean/lidc-idri-val/honest/psnr") == [(0, 21.0)]
    assert "was level" in str(sync(run))
    evaluate(run, 6)
    assert sync(run).evaluations == 2
    assert history(run, "lidc-idri-val/honest/psnr") == [(3, 21.0), (6, 21.0)]


def evaluate(run: Run, step: int) -> None:
    """Two patients scored; an MAE is known of one."""
    from xr2ct.evaluation.results import commit_rows, result_file

    about = {"views": "90+0", "scaling": "window", "weights": "mapper", "store": "0"}
    rows = [
        {"case": "a", "patient": "a", **about, "honest/psnr": 20.0, "honest/mae_hu": 100.0},
        {"case": "b", "patient": "b", **about, "honest/psnr": 22.0},
    ]
    commit_rows(result_file(run, f"step-{step:06d}", "lidc-idri", "val"), rows)
    commit_rows(result_file(run, "prior-mean", "lidc-idri", "val"), rows)


def make_best(run: Run, step: int) -> None:
    """A checkpoint that RUN/best points to."""
    best = run.checkpoint(step)
    (best / "engines").mkdir(parents=True)
    for name in ("mapper.safetensors", "engines/state.pt", "COMPLETE"):
        (best / name).write_text(f"of step {step}")
    run.best.unlink(missing_ok=True)
    run.best.symlink_to(f"checkpoints/{best.name}")


def test_artifacts(make_run: MakeRun, tmp_path: Path) -> None:
    run, _ = make_run()
    make_best(run, 3)
    page = tmp_path / "report"
    (page / "figures").mkdir(parents=True)
    (page / "index.html").write_text("first")
    (page / "figures" / "curve.svg").write_text("<svg/>")
    track_artifact(run, page)
    notes = read_notes(run)

    def listed(folder: str) -> set[str]:
        there = client(notes["uri"])
        return {a.path for a in there.list_artifacts(notes["run_id"], folder)}

    assert listed("best/step-000003") == {f"best/step-000003/{n}" for n in ("mapper.safetensors", "COMPLETE")}
    assert listed("report") == {"report/index.html", "report/figures"}
    assert sync(run).artifacts == 0
    (page / "index.html").write_text("second, longer")
    assert sync(run).artifacts == 1
    where = client(notes["uri"]).download_artifacts(notes["run_id"], "report/index.html")
    assert Path(where).read_text() == "second, longer"


def versions(run: Run) -> list[tuple[str, str]]:
    """Step and run of each version of the run's model."""
    there = client(read_notes(run)["uri"]).search_model_versions(f"name = '{run.path.name}'")
    return sorted((v.tags["xr2ct.step"], v.run_id) for v in there)


def alias(run: Run) -> Any:
    return client(read_notes(run)["uri"]).get_model_version_by_alias(run.path.name, "best")


def test_the_best_checkpoint_is_registered_once_a_step_and_the_alias_moves(make_run: MakeRun) -> None:
    run, _ = make_run()
    assert sync(run).models == 0
    make_best(run, 3)
    assert sync(run).models == 1
    notes = read_notes(run)
    first = alias(run)
    assert first.tags == {"xr2ct.key": notes["key"], "xr2ct.step": "3"}
    assert "was level" in str(sync(run))
    make_best(run, 6)
    assert sync(run).models == 1
    assert alias(run).tags["xr2ct.step"] == "6"
    assert versions(run) == [("3", notes["run_id"]), ("6", notes["run_id"])]
    where = Path(client(notes["uri"]).get_model_version_download_uri(run.path.name, first.version)[7:])
    assert (where / "mapper.safetensors").read_text() == "of step 3", "a version's files stay what they were"
    run.best.unlink()
    run.best.symlink_to("checkpoints/step-000003")
    assert sync(run).models == 0
    assert alias(run).version == first.version


def test_a_version_whose_answer_was_lost_is_found_again(make_run: MakeRun) -> None:
    run, _ = make_run()
    make_best(run, 3)
    sync(run)
    (run.path / "mlflow.json").write_text(json.dumps({"key": read_notes(run)["key"]}))
    assert sync(run).models == 0
    assert len(versions(run)) == 1


def test_members_of_a_sweep_have_models_of_their_own(make_run: MakeRun) -> None:
    runs = [make_run(name)[0] for name in ("sweep+data.views=2", "sweep+data.views=4")]
    for run in runs:
        make_best(run, 3)
        sync(run)
    assert [alias(run).run_id for run in runs] == [read_notes(run)["run_id"] for run in runs]


@pytest.mark.parametrize("variable", ["XR2CT_JOB", "SLURM_JOB_ID"])
def test_no_job_opens_sqlite(
    make_run: MakeRun, variable: str, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level("INFO")
    run, experiment = make_run()
    with monkeypatch.context() as job:
        job.setenv(variable, "123_0")
        with Tracker(run, experiment):
            write_steps(run, 1, STEPS)
        bring_level(run)
        with pytest.raises(WorkFailed, match="no job opens sqlite; run `xr2ct track sync"):
            sync(run)
        assert not (run.path.parent / "mlflow.db").exists()
        assert not (run.path / "mlflow.json").exists()
        said = [r.getMessage() for r in caplog.records if "MLflow" in r.getMessage()]
        assert len(said) == 1 and "is not written from a job" in said[0]
    assert sync(run).metrics == 3 * STEPS
    assert history(run, "loss/mapper") == expected()


def test_a_job_writes_to_a_server(make_run: MakeRun, monkeypatch: pytest.MonkeyPatch) -> None:
    """It tries to, here: nobody is there."""
    monkeypatch.setenv("XR2CT_JOB", "123_0")
    run, _ = make_run(uri="http://127.0.0.1:9")
    with pytest.raises(WorkFailed, match="nothing is lost, try again later"):
        sync(run)


@pytest.mark.parametrize(
    ("error", "status"), [(Stopped(), "SCHEDULED"), (Superseded(), "RUNNING"), (WorkFailed(), "FAILED")]
)
def test_how_a_run_ended(make_run: MakeRun, error: Exception, status: str) -> None:
    run, experiment = make_run()
    with pytest.raises(type(error)), Tracker(run, experiment):
        write_steps(run, 1, 2)
        raise error
    notes = read_notes(run)
    assert client(notes["uri"]).get_run(notes["run_id"]).info.status == status
    write_steps(run, 3, STEPS)
    sync(run)
    assert client(notes["uri"]).get_run(notes["run_id"]).info.status == "FINISHED"


def test_a_locked_database_costs_a_warning(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run, experiment = make_run()
    write_steps(run, 1, 1)
    sync(run)
    lock = sqlite3.connect(run.path.parent / "mlflow.db", isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    live.CLOSING_S = 1.0
    tracker = Tracker(run, experiment)
    with tracker:
        write_steps(run, 2, STEPS)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert "no answer within 1 s; training goes on, and `xr2ct track sync" in caplog.text
    lock.execute("ROLLBACK")
    lock.close()
    tracker._thread.join(120)  # it may still get through, and must then not be in the way
    sync(run, wait_s=120)
    assert history(run, "loss/mapper") == expected()


@contextmanager
def hanging_server() -> Iterator[str]:
    """Accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        accepted: list[socket.socket] = []

        def accept() -> None:
            while True:
                try:
                    accepted.append(server.accept()[0])
                except OSError:
                    return

        threading.Thread(target=accept, daemon=True).start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        for connection in accepted:
            connection.close()


def test_a_hanging_server_stalls_nothing(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    with hanging_server() as uri:
        run, experiment = make_run(uri=uri)
        live.CLOSING_S = 1.0
        began = time.monotonic()
        with Tracker(run, experiment):
            write_steps(run, 1, STEPS)
            assert time.monotonic() - began < 2
        assert time.monotonic() - began < 10
        assert f"MLflow at {uri}: no answer within 1 s; training goes on" in caplog.text
        began = time.monotonic()
        bring_level(run, wait_s=1.0)
        assert time.monotonic() - began < 5
        with pytest.raises(WorkFailed, match=r"nothing is lost, try again later"):
            sync(run)


def test_a_server_that_is_not_there(make_run: MakeRun, caplog: pytest.LogCaptureFixture) -> None:
    run, experiment = make_run(uri="http://127.0.0.1:9")
    with Tracker(run, experiment):
        write_steps(run, 1, STEPS)
        time.sleep(1)
    warnings = [r.getMessage() for r in caplog.records if r.name.startswith("xr2ct")]
    assert len(warnings) == 1
    assert warnings[0].startswith("MLflow at http://127.0.0.1:9: ")
    assert "\n" not in warnings[0]


def test_no_telemetry() -> None:
    from mlflow.environment_variables import MLFLOW_DISABLE_TELEMETRY

    assert MLFLOW_DISABLE_TELEMETRY.get()


def test_parameters_are_flat() -> None:
    nested = {"a": {"b": 1, "c#d": [1, 2]}, "e": None, "f": "text", "g": {}}
    assert parameters(nested) == {"a.b": "1", "a.c_d": "[1, 2]", "e": "null", "f": "text"}


@pytest.mark.slow
def test_many_runs_at_once_on_a_new_database(make_run: MakeRun) -> None:
    runs = [make_run(f"run{i}")[0] for i in range(4)]
    for run in runs:
        write_steps(run, 1, STEPS)
    command = [sys.executable, "-m", "xr2ct.cli", "track", "sync"]
    at_once = [
        subprocess.Popen(
            [*command, str(run.path)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for run in runs
    ]
    said = [process.communicate(timeout=300)[0] for process in at_once]
    assert [process.returncode for process in at_once] == [0] * len(runs), "\n".join(said)
    assert len({read_notes(run)["run_id"] for run in runs}) == len(runs)
    for run in runs:
        assert history(run, "loss/mapper") == expected()


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real one on localhost, answering."""
    uri = f"http://127.0.0.1:{port}"
    database, artifacts = f"sqlite:///{folder}/server.db", (folder / "artifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", "1", "--backend-store-uri", database, "--artifacts-destination", artifacts]
    with (folder / "server.log").open("ab") as said:
        server = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    try:
        deadline = time.monotonic() + 180
        while True:
            try:
                urlopen(f"{uri}/health", timeout=2).close()
                break
            except OSError:
                assert server.poll() is None and time.monotonic() < deadline, said
                time.sleep(0.2)
        yield uri
    finally:
        os.killpg(server.pid, 9)
        server.wait()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@pytest.mark.slow
def test_a_server_stopped_midway(
    make_run: MakeRun, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")  # the machine may be busy
    port = free_port()
    run, experiment = make_run(uri=f"http://127.0.0.1:{port}", system_metrics=True)
    with Tracker(run, experiment):
        with mlflow_server(tmp_path, port):
            write_steps(run, 1, 3)
            deadline = time.monotonic() + 180
            while not (read_notes(run).get("run_id") and len(history(run, "loss/mapper")) == 3):
                assert time.monotonic() < deadline
                time.sleep(0.2)
        write_steps(run, 4, STEPS)
        time.sleep(2)
    assert "`xr2ct track sync" in caplog.text
    with mlflow_server(tmp_path, port):
        assert sync(run).metrics == 3 * 3
        assert sync(run).metrics == 0
        assert history(run, "loss/mapper") == expected()
        notes = read_notes(run)
        assert client(notes["uri"]).get_run(notes["run_id"]).info.status == "FINISHED"
