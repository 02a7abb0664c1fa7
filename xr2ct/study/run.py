"""The stages of a study, one after another."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from signal import Signals

from xr2ct.config import load_members
from xr2ct.errors import STOPPED, Stopped, UserError, WorkFailed
from xr2ct.evaluation.left_out import left_out_pending
from xr2ct.evaluation.pending import pending
from xr2ct.ingest.phantoms import make_phantom_store, phantom_stores
from xr2ct.reporting.exhibit import maker
from xr2ct.reporting.report import write_report
from xr2ct.run import Run
from xr2ct.store import StoreError
from xr2ct.study.budget import paced
from xr2ct.study.child import last_line, run_child
from xr2ct.study.member import Member
from xr2ct.tracking import track_artifact
from xr2ct.training import stage_before
from xr2ct.training.start import completed, open_training_data, refuse_other_values
from xr2ct.training.stopping import Listener, listening

log = logging.getLogger(__name__)

LEAVE_ONE_OUT = "leave-one-out"
"""The exhibit that asks for views to be left out."""


def run_study(
    config: Path,
    overrides: Sequence[str],
    out: Path,
    minutes: float | None = None,
    command: Sequence[str] | None = None,
) -> Path:
    """Run every member of a configuration and report on them in `out`; returns the page.

    minutes: train each member for about so long, by a schedule squeezed to fit (`budget`), instead of to its
    last step. command: kept in the exhibits' locks.

    Raises `UserError` for wrong values, for stores that are not there or lack something, and for runs started
    with other values, before anything is trained; `WorkFailed` with each member that failed, after the others
    have been reported on; `Stopped` where a signal asked for it.
    """
    members = [Member(config, *told) for told in load_members(config, overrides)]
    _refuse_unreportable(members)
    failed: dict[Path, str] = {}
    with listening() as listener:
        going_on = partial(_going_on, listener)
        for wanted in phantom_stores(member.experiment for member in members):
            make_phantom_store(wanted, going_on)
        for member in members:
            store, _ = open_training_data(member.experiment)
            stage_before.find(member.run, member.experiment, store)
        can_run = members if minutes is None else paced(members, minutes, out, listener, failed)
        for member in can_run:
            refuse_other_values(member.run, completed(member.experiment))
        for place, member in enumerate(can_run, 1):
            going_on()
            told = f"[{place}/{len(can_run)}] {member}"
            log_file = out / "logs" / f"{member.run.path.name}.log"
            if reason := _train_and_score(member, told, log_file, listener):
                log.warning("%s: %s", told, reason)
                failed[member.run.path] = reason
        going_on()
        page = _report(can_run, failed, out, command)
    if failed:
        told = "\n".join(f"  {path}: {reason}" for path, reason in failed.items())
        raise WorkFailed(f"{page or 'no report'}: {len(failed)} of {len(members)} members failed\n{told}")
    assert page is not None
    return page


def _going_on(listener: Listener) -> None:
    if listener.heard:
        raise Stopped(f"stopped as {Signals(listener.heard).name} asked; the same command goes on")


def _refuse_unreportable(members: Sequence[Member]) -> None:
    """`UserError` for what would keep the report from being made, before hours are spent."""
    for name in dict.fromkeys(name for member in members for name in member.experiment.exhibits):
        maker(name)
    if len({member.experiment.data.scaling for member in members}) > 1:
        raise UserError("members differ in data.scaling; their figures stand in no common table")
    for member in members:
        completed(member.experiment)


def _train_and_score(member: Member, told: str, file: Path, listener: Listener) -> str | None:
    """Train a member, score it, and score it without each view, where that is not done; why that failed."""
    run, experiment = member.run, member.experiment
    wants_left_out = LEAVE_ONE_OUT in experiment.exhibits and len(experiment.data.views) > 1
    stages: Mapping[str, tuple[Callable[[], bool], list[str]]] = {
        "training": (
            lambda: run.steps()[-1:] != [experiment.training.steps],
            ["train", str(member.config), *member.overrides],
        ),
        "evaluation": (
            lambda: not _is_scored(run),
            ["evaluate", str(run.path)],
        ),
        "leaving views out": (
            lambda: wants_left_out and left_out_pending(run),
            ["evaluate", str(run.path), "--leave-out"],
        ),
    }
    for stage, (is_due, arguments) in stages.items():
        if not is_due():
            continue
        log.info("%s: %s, log in %s", told, stage, file)
        code = run_child(arguments, file, listener)
        _going_on(listener)
        if code == STOPPED:
            raise Stopped(f"{run.path}: {stage} was asked to stop; the same command goes on")
        if code != 0:
            return f"{stage} ended with exit code {code}: {last_line(file)} (see {file})"
        if stage == "evaluation" and run.best_step() is None:
            return f"no best checkpoint: {experiment.data.cohort} has no validation case"
    return None


def _is_scored(run: Run) -> bool:
    try:
        return run.best_step() is not None and not pending(run)
    except StoreError:  # the evaluation scores what the damage leaves, and says what it is
        return False


def _report(
    members: Sequence[Member], failed: Mapping[Path, str], out: Path, command: Sequence[str] | None
) -> Path | None:
    """The page on every member that has a best checkpoint; None where none has."""
    runs = [member.run for member in members if member.run.best_step() is not None]
    if not runs:
        return None
    page = write_report(
        runs, out, absent=[f"{path}: {reason}" for path, reason in failed.items()], command=command
    )
    for run in runs:
        track_artifact(run, out, "report")
    return page
