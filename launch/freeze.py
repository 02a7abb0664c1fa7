"""RUN/code: the program as it was when its run was submitted, which a requeued job still runs a week later.

xr2ct/ launch/ slurm/ configs/    from a clone or an installation, whichever submits
COMMIT                            the commit they are of
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import launch
import xr2ct
from xr2ct import provenance
from xr2ct.shipped import shipped

_NOT_RUN = shutil.ignore_patterns("__pycache__", "*.py[co]", ".*", "*.egg-info", "examples", "devcluster")


def code_folder(run: Path) -> Path:
    return run / "code"


def freeze(run: Path, refresh: bool = False) -> Path:
    """The frozen code of a run's folder, made where there is none; with `refresh`, replaced by today's.

    It is there whole or not at all: copied beside, then renamed.
    """
    folder = code_folder(run)
    if folder.is_dir() and not refresh:
        return folder
    run.mkdir(parents=True, exist_ok=True)
    beside = run / f".code-{uuid.uuid4().hex}.partial"
    try:
        _copy(beside)
        if folder.is_dir():
            old = beside.with_suffix(".removed")
            folder.rename(old)
            beside.rename(folder)
            shutil.rmtree(old)
        else:
            beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return folder


def _copy(to: Path) -> None:
    sources = {
        "xr2ct": Path(xr2ct.__file__).resolve().parent,
        "launch": Path(launch.__file__).resolve().parent,
        "slurm": shipped("slurm/job.sh").parent,
        "configs": shipped("configs/cohorts.yaml").parent,
    }
    for name, source in sources.items():
        # The bytes alone: a store of packages may be read-only, and would make the copy so.
        shutil.copytree(source, to / name, ignore=_NOT_RUN, copy_function=shutil.copyfile)
    (to / "COMMIT").write_text(f"{provenance.commit() or ''}\n", encoding="utf-8")
