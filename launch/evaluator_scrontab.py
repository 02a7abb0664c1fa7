"""Rounds by the clock, where the site has scrontab: one entry a run root, which goes when all is done.

An entry never overlaps itself. It runs RUN_ROOT/.evaluator/round.sh, so that no character of a user's
path means anything to scrontab but those of that one path, which is refused where it could.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

from launch import slurm
from launch.evaluator_book import Book
from launch.profiles import Profile
from xr2ct.errors import UserError, WorkFailed
from xr2ct.run import write_atomically


def install(root: Path, profile: Profile) -> None:
    """Add the entry of a run root, or replace the one that is there; `UserError` without scrontab."""
    if not slurm.has_scrontab():
        raise UserError(
            "profile key evaluator.schedule: scrontab, but this site has none (ScronParameters=enable); "
            "chain or watch would do"
        )
    script = Book(root).folder / "round.sh"
    if re.search(r"[\s%\\'\"#]", str(script)):
        raise UserError(f"{script}: scrontab takes no path with spaces, quotes, % or #; chain would do")
    settings = Book(root).folder / "profile.yaml"
    write_atomically(settings, yaml.safe_dump(profile.model_dump(mode="json"), sort_keys=False))
    command = [sys.executable, "-m", "xr2ct.cli", "evaluate", "--round", "--cluster"]
    lines = [
        "#!/bin/bash",
        *(f"export {name}={shlex.quote(os.environ[name])}" for name in KEPT if name in os.environ),
        f"cd {shlex.quote(str(Path.cwd()))} || exit 2",
        f"exec {shlex.join([*command, str(settings), str(root)])}",
    ]
    write_atomically(script, "\n".join(lines) + "\n")
    _write([*_others(root), *entry(root, profile)])


KEPT = ("PATH", "PYTHONPATH", "SLURM_CONF", "XR2CT_COHORTS")
"""Of the environment that submits; scrontab gives a job next to none."""


def entry(root: Path, profile: Profile) -> list[str]:
    """The lines of a run root's entry."""
    wanted, folder = profile.evaluator, Book(root).folder
    options = {
        "job-name": "xr2ct-rounds",
        "time": wanted.time_limit_min,
        "partition": wanted.partition or profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "output": folder / "logs" / "round-%j.out",
    }
    told = " ".join(f"--{key}={value}" for key, value in options.items() if value is not None)
    every = wanted.every_min
    minutes = f"*/{every} *" if every < 60 else f"0 */{min(23, every // 60)}"
    return [f"#SCRON {told}", f"{minutes} * * * bash {folder / 'round.sh'}"]


def remove(root: Path) -> None:
    """Take the entry of a run root away, where there is one."""
    if not (Book(root).folder / "round.sh").exists():
        return
    here = _read()
    others = _others(root)
    if others != here:
        _write(others)
    (Book(root).folder / "round.sh").unlink(missing_ok=True)


def _others(root: Path) -> list[str]:
    """The user's entries without the run root's own, which is two lines."""
    lines = _read()
    ours = f" bash {Book(root).folder / 'round.sh'}"
    kept: list[str] = []
    for line in lines:
        if line.endswith(ours):
            if kept and kept[-1].startswith("#SCRON"):
                kept.pop()
        else:
            kept.append(line)
    return kept


def _read() -> list[str]:
    done = subprocess.run(["scrontab", "-l"], capture_output=True, text=True, check=False)
    if done.returncode != 0 and "no crontab" not in done.stderr:
        raise WorkFailed(f"scrontab -l: {done.stderr.strip().splitlines()[:1]}")
    return done.stdout.splitlines()


def _write(lines: list[str]) -> None:
    text = "\n".join(lines) + "\n" if lines else ""
    done = subprocess.run(["scrontab", "-"], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise WorkFailed(f"scrontab: {' '.join(done.stderr.split())}")
