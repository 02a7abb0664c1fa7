"""RUN/code: what a job runs, whatever happens to the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from launch.freeze import code_folder, freeze
from xr2ct import provenance
from xr2ct.run import Run

SAYS = (
    "import launch, xr2ct, xr2ct.provenance as p, xr2ct.shipped as s; print(xr2ct.__file__, launch.__file__)"
)


def ask(code: Path, program: str, folder: Path) -> str:
    environment = os.environ | {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    run = Run(tmp_path_factory.mktemp("runs") / "it's 100%\n mine")
    freeze(run.path)
    return run


def test_it_is_imported_before_the_checkout_even_from_within_that(run: Run) -> None:
    code = code_folder(run.path)
    told = ask(code, SAYS, Path(provenance.__file__).parents[1])
    assert told == f"{code / 'xr2ct/__init__.py'} {code / 'launch/__init__.py'}"


def test_it_has_the_files_that_come_with_the_program_and_no_others(run: Run) -> None:
    code = code_folder(run.path)
    program = (
        "from xr2ct.shipped import shipped; print(shipped('slurm/job.sh')); print(shipped('configs/splits'))"
    )
    assert ask(code, program, run.path) == f"{code / 'slurm/job.sh'}\n{code / 'configs/splits'}"
    assert not [p for p in code.rglob("*") if p.name == "__pycache__" or p.name.startswith(".")]


def test_it_still_tells_its_commit(run: Run) -> None:
    program = "from xr2ct.provenance import commit; print(commit())"
    assert ask(code_folder(run.path), program, run.path) == str(provenance.commit())


def test_it_is_kept_unless_another_is_asked_for(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    mark = freeze(run.path) / "xr2ct" / "as_submitted.py"
    mark.touch()
    freeze(run.path)
    assert mark.exists()
    freeze(run.path, refresh=True)
    assert not mark.exists()
    assert sorted(p.name for p in run.path.iterdir()) == ["code"]


def test_killed_in_between_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(tmp_path / "run")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("launch.freeze.provenance.commit", full)
    with pytest.raises(OSError, match="No space"):
        freeze(run.path)
    assert not list(run.path.iterdir())
