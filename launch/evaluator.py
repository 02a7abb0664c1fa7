"""The scheduled evaluator: rounds until training has ended and everything is scored or given up.

    start(profile, run_root)        by `submit`: the chain, the scrontab entry, or how to watch
    watch(profile, paths)           `xr2ct evaluate --watch`, outside jobs
    stop(run_root), state(run_root) by `cancel` and `status`

A chain is a short job that submits its successor before it works, to begin some minutes later and never
beside another round of the run root (``--dependency=singleton``).
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import signal
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from launch import evaluator_scrontab, slurm
from launch.evaluator_book import Book, claims, given_up, reset_attempts
from launch.evaluator_round import (
    Outcome,
    code_digest,
    code_of,
    evaluation_round,
    in_turn,
    lacking_pairs,
)
from launch.executor import Call, Request, submit_array
from launch.profiles import Profile
from launch.submitted import find_runs, process_lives, signal_process
from xr2ct.config import validate
from xr2ct.errors import UserError, WorkFailed

__all__ = ["reset_attempts", "start", "state", "stop", "watch"]

log = logging.getLogger(__name__)

RETRIES_S = (0, 60, 300, 600)
"""Pauses between a round's attempts at submitting its successor, where Slurm refuses it."""
ROUND_LOGS = 100
"""Newest logs of rounds that are kept, two a round."""


def start(profile: Profile, run_root: Path, runs: Sequence[Path] = ()) -> str | None:
    """See to it that the runs of a root get scored, as the profile says; returns the id of a job of it.

    Nothing where its evaluator goes on already. None where rounds come otherwise than as a chain of jobs;
    what the user has to do then is logged. runs: those submitted now, whose code the rounds run. Raises
    `UserError` where Slurm refuses the job.
    """
    root = run_root.resolve()
    book = Book(root)
    schedule = profile.evaluator.schedule
    if schedule == "off":
        return None
    with in_turn(book):
        # A round that finds this changed does not end the evaluator.
        book.write("asked", {"times": book.read("asked").get("times", 0) + 1})
        book.write("profile", profile.model_dump(mode="json"))
        book.write("code", {"folder": _freeze(book, runs)})
        if schedule == "chain":
            following = book.read("chain").get("next")
            if following and slurm.alive([following]):
                return str(following)
            return _submit_round(book, profile, begin=None)
    if schedule == "scrontab":
        evaluator_scrontab.install(root, profile)
    else:
        log.info("to have checkpoints scored: xr2ct evaluate --watch --cluster PROFILE %s", root)
    return None


def stop(run_root: Path) -> list[str]:
    """End the evaluator of a root with its scoring tasks; returns the ids of what was cancelled."""
    root = run_root.resolve()
    book = Book(root)
    if not book.folder.is_dir():
        return []
    with in_turn(book):
        chain = book.read("chain")
        arrays = list(book.arrays())
        rounds = {id for id in (chain.get("next"), chain.get("now")) if id}
        scoring = {id for array in arrays if array.executor == "slurm" for id in array.ids}
        live = slurm.alive(rounds | scoring) if rounds | scoring else set()
        slurm.forbid_requeue(live & rounds)
        slurm.cancel(live)
        here = [id for array in arrays if array.executor == "local" for id in array.ids]
        processes = [id for id in here if process_lives(int(id))]
        for id in processes:
            signal_process(int(id), signal.SIGTERM)
        book.write("chain", {"next": None})
        evaluator_scrontab.remove(root)
    return sorted([*live, *processes])


def state(run_root: Path) -> dict[Path, dict[str, int]]:
    """By run: pairs yet to be scored, those of them that a job is at, and those given up."""
    runs = [run for run in find_runs([run_root]) if run.path.resolve().parent == run_root.resolve()]
    found = {}
    told: list[str] = []
    for path, pairs in lacking_pairs(runs, told).items():
        run = next(run for run in runs if run.path == path)
        abandoned = given_up(run).keys() & set(pairs)
        held = claims(run).keys() & set(pairs)
        counts = {"pending": len(pairs) - len(abandoned), "claimed": len(held), "failed": len(abandoned)}
        found[path.resolve()] = counts
    for line in told:
        log.warning("%s", line)
    return found


def watch(profile: Profile, paths: Sequence[Path], *, once: bool = False) -> None:
    """Rounds over runs and folders of runs until all is scored, or one round.

    What it submitted goes on when it is interrupted. While Slurm does not answer it waits, but a single round
    raises `WorkFailed`. Raises `UserError` for a path without a run.
    """
    targets = _targets(paths)
    while True:
        outcomes = []
        for root, named in targets.items():
            try:
                outcomes.append(evaluation_round(root, profile, named))
                log.info("%s: %s", root, outcomes[-1])
            except WorkFailed as error:
                if once:
                    raise
                log.warning("%s; trying again in %d min", error, profile.evaluator.every_min)
        if once:
            for root, outcome in zip(targets, outcomes, strict=True):
                if outcome.finished:
                    evaluator_scrontab.remove(root)
            return
        if len(outcomes) == len(targets) and all(outcome.finished for outcome in outcomes):
            return
        _pause(profile, outcomes)


def round_task(root: str) -> None:
    """A job of the chain: its successor first, so that no end of this one ends the chain, then the round."""
    book = Book(Path(root))
    me = os.environ["XR2CT_JOB"]
    profile = validate(Profile, book.read("profile"), str(book.folder / "profile.json"))
    _forget_old_logs(book.folder / "rounds")
    asked = book.read("asked")
    refused = _succeed(book, profile, me, RETRIES_S[:1])
    outcome = evaluation_round(book.root, profile)
    log.info("%s", outcome)
    with in_turn(book):
        chain = book.read("chain")
        if outcome.finished and book.read("asked") == asked and chain.get("now") in (me, None):
            following = chain.get("next")
            if following and following != me:
                slurm.forbid_requeue([following])
                slurm.cancel([following])
            book.write("chain", chain | {"next": None})
            return
    if refused and (refused := _succeed(book, profile, me, RETRIES_S[1:])):
        raise WorkFailed(f"the evaluator ends here, its next round was refused: {refused}")


def _succeed(book: Book, profile: Profile, me: str, pauses: Sequence[float]) -> str:
    """Submit the next round, unless it is, or this one is a surplus; why Slurm refuses, empty where not.

    Surplus is a round that was submitted twice, its first submitter having died before it wrote the id down.
    A round that was requeued after it had submitted its successor finds that one alive.
    """
    refused = ""
    for pause in pauses:
        time.sleep(pause)
        with in_turn(book):
            following = book.read("chain").get("next")
            if following != me and (following is None or slurm.alive([following])):
                return ""
            try:
                _submit_round(book, profile, begin=f"now+{profile.evaluator.every_min}minutes", now=me)
                return ""
            except UserError as error:
                refused = str(error)
                log.warning("the next round is refused for now: %s", refused)
    return refused


def _submit_round(book: Book, profile: Profile, begin: str | None, now: str | None = None) -> str:
    wanted = profile.evaluator
    request = Request(
        name=f"xr2ct-rounds-{hashlib.sha256(str(book.root).encode()).hexdigest()[:12]}",
        nodes=1,
        tasks_per_node=1,
        gpus_per_node=0,
        cpus_per_task=1,
        mem_gb=wanted.mem_gb,
        minutes=wanted.time_limit_min,
        dependency="singleton",
        begin=begin,
        container=False,  # it needs Slurm's commands
        overrides={"partition": wanted.partition} if wanted.partition else {},
    )
    code = book.read("code").get("folder")
    call = Call(round_task, (str(book.root),), book.folder / "rounds", Path(code) if code else None)
    folder = book.root / ".submissions" / f"xr2ct-round-{uuid.uuid4().hex[:12]}"
    (id,) = submit_array(profile, request, [call], folder)
    chain = book.read("chain")
    book.write("chain", {"next": id, "now": now, "folders": [*chain.get("folders", [])[-2:], str(folder)]})
    for old in chain.get("folders", [])[:-2]:
        shutil.rmtree(old, ignore_errors=True)  # of rounds that are over
    return id


def _forget_old_logs(folder: Path) -> None:
    """A chain may go on for weeks."""
    logs = sorted(folder.glob("*.out"), key=lambda log: log.stat().st_mtime)
    for log_file in logs[:-ROUND_LOGS]:
        log_file.unlink(missing_ok=True)


def _freeze(book: Book, runs: Sequence[Path]) -> str | None:
    """A copy of the newest run's frozen code: the run may be deleted while others are still scored."""
    code = next((found for run in reversed(runs) if (found := code_of(run.resolve()))), None)
    if code is None:
        kept: Any = book.read("code").get("folder")
        return str(kept) if kept else None
    copy = book.folder / "code" / code_digest(code)[:16]
    if not copy.is_dir():
        partial = copy.with_name(f".{copy.name}.{uuid.uuid4().hex}")
        shutil.copytree(code, partial, symlinks=True)
        partial.rename(copy)
    return str(copy)


def _targets(paths: Sequence[Path]) -> dict[Path, list[Path]]:
    """Run roots, each with the runs named of it; with none where all that were submitted are meant."""
    targets: dict[Path, list[Path]] = {}
    for path in paths:
        for run in find_runs([path]):
            here = run.path.resolve()
            named = targets.setdefault(here.parent, [])
            if here == path.resolve():
                named.append(here)
    return targets


def _pause(profile: Profile, outcomes: Sequence[Outcome]) -> None:
    """Until the next round is due; on this machine, until what was started has ended."""
    due = time.monotonic() + profile.evaluator.every_min * 60
    started = [id for outcome in outcomes for id in outcome.submitted]
    while time.monotonic() < due:
        if profile.executor == "local" and started and not any(process_lives(int(id)) for id in started):
            return
        time.sleep(min(2.0, max(0.0, due - time.monotonic())))
