"""Versions, commit and checksums, as they are where a run starts."""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
from pathlib import Path

import torch

from xr2ct import provenance


def test_versions() -> None:
    versions = provenance.versions()
    assert versions["python"] == platform.python_version()
    assert versions["torch"] == torch.__version__
    assert ("cuda" in versions) == bool(torch.version.cuda)


def commit_of(package: Path) -> str:
    code = "from xr2ct import provenance; print(provenance.commit())"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=package, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=test", "-c", "user.email=test@example.org"]
    command = ["git", *identity, "-C", str(folder), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_commit(tmp_path: Path) -> None:
    """Of the repository that holds this code; none where the code only lies inside somebody else's."""
    package = tmp_path / "xr2ct"
    package.mkdir()
    source = Path(provenance.__file__).parent
    for name in ("__init__.py", "provenance.py", "config.py", "errors.py"):
        shutil.copy(source / name, package)
    for folder in ("cohorts", "projection"):
        shutil.copytree(source / folder, package / folder)
    assert commit_of(tmp_path) == "None"
    git(tmp_path, "init", "-q")
    assert commit_of(tmp_path) == "None"
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-q", "-m", "first")
    head = git(tmp_path, "rev-parse", "HEAD")
    assert commit_of(tmp_path) == head
    (package / "errors.py").write_text((package / "errors.py").read_text() + "\n")
    assert commit_of(tmp_path) == f"{head}-dirty"
