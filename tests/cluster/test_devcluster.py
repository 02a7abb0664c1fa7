"""The scripts that bring a Slurm up and down: twice, beside another, and what they refuse."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from bed import SCRIPTS, Bed, alive, processes_with


def call(name: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPTS / name), *map(str, words)], capture_output=True, text=True, check=False
    )


@pytest.fixture
def folder(able: None) -> Iterator[Path]:
    path = Path("/tmp/xr2ct-bed-scripts")
    yield path
    call("down", "--dir", path)


def daemons(folder: Path) -> set[int]:
    return {n for n in processes_with({"SLURM_CONF": f"{folder}/slurm.conf"}) if alive(n)}


@pytest.mark.slow
def test_up_twice_and_down_leaves_nothing(bed: Bed, folder: Path) -> None:
    """Beside the tests' own instance, of which nothing is touched."""
    others = daemons(bed.folder)
    first = call("up", "--dir", folder, "--no-accounting", "--nodes", "1")
    assert first.stdout == f"export SLURM_CONF={folder}/slurm.conf\n", first.stderr
    running = daemons(folder)
    assert len(running) == 4  # munged, slurmctld, its slurmscriptd, slurmd
    assert call("up", "--dir", folder).stdout == first.stdout
    assert daemons(folder) == running
    one = Bed(folder)
    assert one.run("srun", "hostname").stdout
    assert "accounting storage is disabled" in one.run("sacct", expect=None).stderr
    # A task that would outlive everything.
    job = one.run("sbatch", "--parsable", "--output=/dev/null", "--wrap", "setsid sleep 600").stdout.strip()
    one.wait_state(job, "RUNNING")
    done = call("down", "--dir", folder)
    assert done.returncode == 0, done.stderr
    assert not daemons(folder)
    assert not folder.exists()
    assert daemons(bed.folder) == others


@pytest.mark.parametrize(
    ("script", "words", "said"),
    [
        ("up", ["--dir", "/tmp/" + "x" * 60], "at most 60 characters"),
        ("up", ["--dir", "/tmp/a b"], "spaces"),
        ("down", ["--dir", "/tmp/nothing-here"], "no Slurm was brought up here"),
        ("node", ["n1", "stop", "--dir", "/tmp/nothing-here"], "no Slurm was brought up here"),
    ],
)
def test_refused_in_a_line(able: None, script: str, words: list[str], said: str) -> None:
    done = call(script, *words)
    assert done.returncode == 1
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_missing_packages_and_root_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(SCRIPTS))
    import daemons as program

    monkeypatch.setattr(program.os, "geteuid", lambda: 0)
    monkeypatch.setattr(program.shutil, "which", lambda name, path=None: None)
    with pytest.raises(program.Failed, match="apt-get install") as refused:
        program.check_machine()
    assert "mariadb-server munge slurm-client slurmctld slurmd slurmdbd" in str(refused.value)
    monkeypatch.setattr(program.os, "geteuid", lambda: 1000)
    with pytest.raises(program.Failed, match="root"):
        program.check_machine()
