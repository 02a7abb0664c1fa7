"""What a report wrote is drawn again byte for byte when runs, stores and checkpoints are gone."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_study import made_run

from xr2ct.cli import main
from xr2ct.errors import UserError
from xr2ct.reporting import pictures
from xr2ct.reporting.gallery import Gallery
from xr2ct.reporting.lock import FORMAT, read_lock, rebuild, write_exhibit

FIGURE, TABLE, PICTURES = "views", "cohorts", "made"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of exhibits whose runs are gone."""
    work = tmp_path_factory.mktemp("report")
    runs = []
    for views, psnr in (((90,), 20.0), ((90, 0), 21.0)):
        scores = {("lidc-idri", "val"): {"v": psnr}, ("lidc-idri", "test"): {"a": psnr, "b": psnr + 2}}
        config = {"data": {"views": views}, "exhibits": [TABLE, FIGURE], "tracking": {"enabled": False}}
        runs.append(made_run(work / "runs" / f"{len(views)}-views", scores, **config))
    assert main(["report", *(str(run.path) for run in runs), "--out", str(work / "out")]) == 0
    pixels = np.linspace(-1000, 400, 256).reshape(16, 16)
    gallery = Gallery(PICTURES, "t", "c", ("CT",), ("row",), ((pictures.grey(pixels, -1000, 400),),))
    write_exhibit(gallery, work / "out", ["xr2ct"], [])
    shutil.rmtree(work / "runs")
    return work / "out"


def drawn(folder: Path) -> dict[str, bytes]:
    """Everything but locks, sources and the page, by name."""
    files = (f for f in folder.iterdir() if ".lock." not in f.name and ".source." not in f.name)
    return {f.name: f.read_bytes() for f in files if f.name != "index.html"}


def test_each_exhibit_leaves_its_files_its_source_and_its_lock(report: Path) -> None:
    names = {f.name for f in report.iterdir()}
    assert {f"{TABLE}.{s}" for s in ("md", "csv", "tex", "source.json", "lock.json")} <= names
    assert {f"{FIGURE}.{s}" for s in ("pdf", "svg", "csv", "source.json", "lock.json")} <= names
    assert {
        f"{PICTURES}.{s}" for s in ("pdf", "svg", "csv", "source.json", "source.npz", "lock.json")
    } <= names


def test_another_process_draws_the_same_bytes_without_any_run(report: Path, tmp_path: Path) -> None:
    locks = [report / f"{name}.lock.json" for name in (TABLE, FIGURE, PICTURES)]
    command = [sys.executable, "-m", "xr2ct.cli", "report", "--from", *locks, "--out", tmp_path]
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "not byte for byte" not in done.stderr
    assert drawn(tmp_path) == drawn(report) and len(drawn(tmp_path)) == 9


def test_the_lock_says_what_it_was_made_of(report: Path) -> None:
    lock = read_lock(report / f"{FIGURE}.lock.json")
    assert lock.command[:2] == ["xr2ct", "report"] and {"xr2ct", "numpy", "matplotlib"} <= set(lock.versions)
    assert [(run.name, run.seed, run.best_step) for run in lock.runs] == [
        ("1-views", 0, 500),
        ("2-views", 0, 500),
    ]
    assert lock.runs[1].config["data"]["views"] == [90.0, 0.0]
    assert set(lock.runs[0].checkpoint) == {"COMPLETE"}  # these runs have no weights
    assert set(lock.runs[0].results) == {f"step-000500/lidc-idri-{split}.csv" for split in ("val", "test")}


@pytest.fixture
def copy(report: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(report, tmp_path / "copy"))


@pytest.mark.parametrize("file", [f"{TABLE}.source.json", f"{PICTURES}.source.npz"])
def test_a_source_that_was_touched_is_refused(copy: Path, tmp_path: Path, file: str) -> None:
    (copy / file).write_bytes((copy / file).read_bytes() + b" ")
    with pytest.raises(UserError, match=f"{file}: differs from its checksum in"):
        rebuild(copy / f"{file.split('.')[0]}.lock.json", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_source_that_is_missing_is_named(copy: Path, tmp_path: Path) -> None:
    (copy / f"{PICTURES}.source.npz").unlink()
    with pytest.raises(UserError, match=r"made\.source\.npz: the source of made\.lock\.json cannot be read"):
        rebuild(copy / f"{PICTURES}.lock.json", tmp_path / "out")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (
            {"format": FORMAT + 1},
            f"of format {FORMAT + 1}, which a newer xr2ct wrote; this one reads up to {FORMAT}",
        ),
        ({"kind": "film"}, "kind: expected table, chart, gallery, got 'film'"),
        ({"name": "../elsewhere"}, "name: "),
        ({"source": {}}, "source: expected cohorts.source.json"),
        ({"comand": []}, "unknown key 'comand': did you mean 'command'?"),
    ],
)
def test_a_lock_that_is_not_right_is_one_line(
    copy: Path, changed: dict[str, object], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = copy / f"{TABLE}.lock.json"
    lock.write_text(json.dumps(json.loads(lock.read_text()) | changed))
    assert main(["report", "--from", str(lock), "--out", str(copy / "again")]) == 2
    error = capsys.readouterr().err
    assert told in error and len(error.strip().splitlines()) == 1


def test_what_is_no_lock_is_said(tmp_path: Path) -> None:
    (tmp_path / "a.lock.json").write_text("%PDF")
    with pytest.raises(UserError, match="not a lock"):
        read_lock(tmp_path / "a.lock.json")
    with pytest.raises(UserError, match="cannot be read"):
        read_lock(tmp_path / "b.lock.json")


def test_other_bytes_are_told_with_the_versions_that_differ(
    copy: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lock = copy / f"{FIGURE}.lock.json"
    values = json.loads(lock.read_text())
    values["files"]["svg"] = "0" * 64
    values["versions"]["matplotlib"] = "1.0"
    lock.write_text(json.dumps(values))
    with caplog.at_level(logging.WARNING):
        rebuild(lock, tmp_path / "out")
    assert "not byte for byte as first drawn: svg (matplotlib 1.0 then" in caplog.text


def test_runs_and_locks_do_not_go_together(report: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "--out", "o"]) == 2
    assert main(["report", "run", "--from", str(report / f"{TABLE}.lock.json"), "--out", "o"]) == 2
    assert capsys.readouterr().err.count("expected runs or configurations, or else --from") == 2
