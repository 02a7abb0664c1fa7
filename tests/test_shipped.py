"""Files that come with the program are found in a clone, in frozen code and in an installation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from xr2ct import shipped
from xr2ct.errors import WorkFailed

ROOT = Path(__file__).parents[1]


def test_a_clone_has_them_beside_the_package():
    assert shipped.shipped("configs/cohorts.yaml") == ROOT / "configs/cohorts.yaml"
    assert (shipped.shipped("slurm/profiles") / "local.yaml").is_file()


def test_an_installation_has_them_under_share(tmp_path, monkeypatch):
    installed = tmp_path / "share" / "xr2ct"
    (installed / "slurm").mkdir(parents=True)
    (installed / "slurm" / "only-there.yaml").touch()
    monkeypatch.setattr(shipped, "_PLACES", (shipped._PLACES[0], installed))
    assert shipped.shipped("slurm/only-there.yaml") == installed / "slurm" / "only-there.yaml"
    assert shipped.shipped("configs/cohorts.yaml").is_relative_to(ROOT)
    with pytest.raises(WorkFailed, match=r"nowhere\.yaml: not in this installation"):
        shipped.shipped("nowhere.yaml")


def test_the_place_of_an_installation_is_this_pythons():
    assert Path(sysconfig.get_path("data")) / "share" / "xr2ct" in shipped._PLACES


def test_frozen_code_uses_its_own(tmp_path):
    """What a run took along, not what the checkout says today."""
    for part in ("xr2ct", "configs"):
        shutil.copytree(ROOT / part, tmp_path / part, ignore=shutil.ignore_patterns("__pycache__"))
    found = subprocess.run(
        [sys.executable, "-c", "from xr2ct.shipped import shipped; print(shipped('configs/cohorts.yaml'))"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd="/",
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == str(tmp_path / "configs/cohorts.yaml")
