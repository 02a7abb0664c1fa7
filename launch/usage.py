"""What runs take on the disk, and what of it may go: nothing that is still to be resumed from or scored.

xr2ct du    RUN|RUN_ROOT ...
xr2ct clean RUN|RUN_ROOT ... [--weights] [--dry-run]
"""

from __future__ import annotations

import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from launch import slurm
from launch.submitted import Submitted, find_runs, living, process_lives, read_submission
from launch.units import format_bytes
from xr2ct.errors import UserError, WorkFailed
from xr2ct.evaluation.pairs import Stores, find_pairs
from xr2ct.evaluation.pending import pending
from xr2ct.run import Run
from xr2ct.store import StoreError
from xr2ct.training import checkpoints, fence

_BEGUN = "_submitted.pkl"
"""How the host script links what a member runs, by the member's id, when it begins."""
PARTS = ("engines", "weights", "logs", "code", "evaluations", "leftovers", "other")
_BLOCK = 512
"""st_blocks counts these, whatever the file system's own are."""
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}")
"""What `write_atomically` writes into before it renames."""


@dataclass(frozen=True)
class Unneeded:
    """Something that may go."""

    path: Path
    bytes: int
    why: str


def usage(run: Run) -> dict[str, int]:
    """Bytes on the disk by part; a file with several names is counted once."""
    totals = dict.fromkeys(PARTS, 0)
    for part, size in _sizes(run.path, set()):
        totals[part] += size
    return totals


def usage_table(paths: Sequence[Path]) -> dict[str, dict[str, int]]:
    """`usage` of every run that a path is or holds, by the run's path. `UserError` for a path without one."""
    return {str(run.path): usage(run) for run in find_runs(paths)}


def format_usage(table: Mapping[str, Mapping[str, int]]) -> str:
    """A plain table with totals."""
    total: Counter[str] = Counter()
    for parts in table.values():
        total.update(parts)
    rows = [*table.items(), ("total", total)] if len(table) > 1 else list(table.items())
    lines = [["run", *PARTS, "total"]]
    lines += [[name, *(format_bytes(parts[p]) for p in PARTS), format_bytes(sum(parts.values()))]
              for name, parts in rows]  # fmt: skip
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            [line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]
        )
        for line in lines
    )


def clean(
    paths: Sequence[Path], weights: bool = False, dry_run: bool = False
) -> tuple[list[Unneeded], list[str]]:
    """Delete what no one needs any more of the runs that the paths are or hold; with `dry_run`, only list it.

    Returns what went, or would, and a line for each run that was left alone. `weights`: also whole
    checkpoints that are scored on everything and are neither the best nor one of the last. Raises
    `WorkFailed` where Slurm does not answer: then it cannot be known which runs live.
    """
    runs = find_runs(paths)
    submissions = [s for run in runs if (s := read_submission(run))]
    live = living(submissions)
    gone: list[Unneeded] = []
    left: list[str] = []
    for run in runs:
        if run.path in live:
            left.append(f"{run.path}: its job lives; only checkpoints that are scored may go")
            gone += _removed(_scored_checkpoints(run, left) if weights else [], dry_run)
            continue
        if dry_run and fence.in_use(run):
            left.append(f"{run.path}: being trained by another process; left alone")
            continue
        try:
            # A start of training like any other: it keeps others out, and supersedes what a lost node left.
            with nullcontext() if dry_run else fence.held(run):
                gone += _removed(_unneeded(run, weights, left), dry_run)
        except WorkFailed as error:
            left.append(f"{error}; left alone")
    for root in sorted({run.path.resolve().parent for run in runs}):
        gone += _removed(_old_submissions(root, submissions), dry_run)
    return gone, left


def format_unneeded(gone: Sequence[Unneeded], dry_run: bool) -> str:
    """One line each with its size, and the sum."""
    lines = [f"{format_bytes(item.bytes):>8}  {item.path}  ({item.why})" for item in gone]
    verb = "would be freed" if dry_run else "freed"
    return "\n".join([*lines, f"{format_bytes(sum(item.bytes for item in gone))} {verb}"])


def _unneeded(run: Run, weights: bool, left: list[str]) -> Iterator[Unneeded]:
    """Of a run that nobody trains."""
    keep = _kept(run)
    for step in run.steps()[:-keep]:
        if (engines := run.checkpoint(step) / checkpoints.ENGINES).is_dir():
            yield _item(engines, f"{keep} newer checkpoints can be resumed from")
    for leftover in checkpoints.leftovers(run):
        yield _item(leftover, "left by a killed process" if "damaged" not in leftover.name else "damaged")
    for folder in (run.path, run.evaluations, *run.evaluations.glob("*/")):
        for path in folder.glob(".*"):
            if _TEMPORARY.fullmatch(path.name) and not path.is_dir():
                yield _item(path, "left by a killed process")
    for path in sorted((run.path / "slurm").glob("rendezvous-*")):
        yield _item(path, "its job has ended")
    if (heartbeats := run.path / "slurm" / "heartbeats").is_dir():
        yield _item(heartbeats, "its job has ended")
    if weights:
        yield from _scored_checkpoints(run, left)


def _scored_checkpoints(run: Run, left: list[str]) -> Iterator[Unneeded]:
    """Whole checkpoints that nothing is left to do with: neither best, nor of the last, nor to be scored.

    A cohort whose store is not there yet is still to be scored on.
    """
    if not run.config_file.is_file():
        return
    experiment = run.experiment()
    missing: dict[str, str] = {}
    try:
        stores = Stores()
        find_pairs(experiment, None, missing, stores)
        keep = {pair.step for pair in pending(run, stores)}
    except (UserError, StoreError) as error:
        left.append(f"{run.path}: no checkpoint removed, since it is not known what is scored: {error}")
        return
    if unseen := missing.keys() & {experiment.data.cohort, *experiment.evaluation.cohorts}:
        left.append(
            f"{run.path}: no checkpoint removed, since {', '.join(sorted(unseen))} cannot be scored on yet "
            f"(evaluation.cohorts in {run.config_file} says what is wanted)"
        )
        return
    keep |= {*run.steps()[-_kept(run) :], run.best_step()}
    for step in run.steps():
        if step not in keep:
            yield _item(run.checkpoint(step), "scored on everything, neither best nor of the last")


def _kept(run: Run) -> int:
    """Of how many of the newest checkpoints all is kept."""
    return run.experiment().training.keep_engines if run.config_file.is_file() else 2


def _old_submissions(root: Path, submissions: Sequence[Submitted]) -> Iterator[Unneeded]:
    """Folders of submissions that are no run's last one, once all of their jobs have begun and ended.

    One whose jobs wait is left: what they will run is in it.
    """
    used = {s.submission.resolve() for s in submissions}
    jobs = {
        folder: {link.name.removesuffix(_BEGUN) for link in folder.glob(f"*{_BEGUN}")}
        for folder in sorted((root / ".submissions").glob("*/"))
        if folder.resolve() not in used
    }
    alive = _alive({id for ids in jobs.values() for id in ids})
    for folder, ids in jobs.items():
        if ids and not ids & alive and len(ids) >= len(list((folder / "members").glob("*/"))):
            yield _item(folder, "its jobs have ended")


def _alive(ids: set[str]) -> set[str]:
    """Array members that Slurm has, and processes of this machine."""
    members = {id for id in ids if "_" in id}
    return (slurm.alive(members) if members else set()) | {
        id for id in ids - members if process_lives(int(id))
    }


def _removed(items: Iterator[Unneeded] | Sequence[Unneeded], dry_run: bool) -> list[Unneeded]:
    done = list(items)
    if not dry_run:
        for item in done:
            _remove(item.path)
    return done


def _remove(path: Path) -> None:
    """A checkpoint, or its engines, out of sight in one rename first: killed then, it is not half there."""
    hidden = path.name.startswith((".partial-", ".removed-"))
    if hidden or "checkpoints" in (path.parent.name, path.parent.parent.name):
        checkpoints.remove(path)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _item(path: Path, why: str) -> Unneeded:
    return Unneeded(path, sum(size for _, size in _sizes(path, set())), why)


def _sizes(path: Path, seen: set[tuple[int, int]]) -> Iterator[tuple[str, int]]:
    """The part and the disk use of every file in a folder; one that vanishes meanwhile takes nothing."""
    names = [path] if not path.is_dir() or path.is_symlink() else [path, *_walk(path)]
    for name in names:
        try:
            stat = name.lstat()
        except FileNotFoundError:
            continue
        if (stat.st_dev, stat.st_ino) not in seen:
            seen.add((stat.st_dev, stat.st_ino))
            yield _part(name.relative_to(path).parts), stat.st_blocks * _BLOCK


def _walk(path: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(path):
        for name in (*folders, *files):
            yield Path(folder, name)


def _part(parts: Sequence[str]) -> str:
    """Which part of a run a path in it belongs to."""
    top, *below = parts or ("",)
    if _TEMPORARY.fullmatch(parts[-1] if parts else "") or (
        below and top == "checkpoints" and below[0][0] == "."
    ):
        return "leftovers"
    if top == "checkpoints":
        return "engines" if checkpoints.ENGINES in below[1:2] else "weights"
    return {"slurm": "logs", "code": "code", "evaluations": "evaluations"}.get(top, "other")
