"""A checkpoint's folder: written whole or not at all, checked before it is used.

It grows as a hidden folder beside its place, gets a COMPLETE with every file's size and digest last of
all, is flushed to the disk and then renamed: a folder called ``step-…`` is whole from its first moment.
What a killed process leaves behind is hidden, and removed when the run is started again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
from pathlib import Path

from xr2ct.run import Run, step_name

log = logging.getLogger(__name__)

ENGINES = "engines"
"""The part of a checkpoint that only resuming needs, and that older checkpoints lose."""

_PARTIAL = ".partial-"
_REMOVED = ".removed-"
_DAMAGED = ".damaged-"


class Damaged(Exception):
    """A checkpoint that cannot be used; the text says which file and why."""


def begin(run: Run, step: int) -> Path:
    """An empty hidden folder to write a checkpoint into."""
    partial = partial_folder(run, step)
    shutil.rmtree(partial, ignore_errors=True)
    (partial / ENGINES).mkdir(parents=True)
    return partial


def partial_folder(run: Run, step: int) -> Path:
    """Where the checkpoint of a step is written before it is whole."""
    return run.checkpoint(step).with_name(_PARTIAL + step_name(step))


def commit(run: Run, step: int) -> Path:
    """Make what was written since `begin` the checkpoint of `step`."""
    partial, final = partial_folder(run, step), run.checkpoint(step)
    digests = {str(p.relative_to(partial)): _digest(p) for p in sorted(partial.rglob("*")) if p.is_file()}
    for path in partial.rglob("*"):
        _fsync(path)
    complete = partial / "COMPLETE"
    complete.write_text(json.dumps({"step": step, "files": digests}, indent=1), encoding="utf-8")
    _fsync(complete)
    _fsync(partial)
    if final.exists():
        _remove(final)
    partial.rename(final)
    _fsync(final.parent)
    return final


def verify(checkpoint: Path) -> None:
    """Compare every file with what COMPLETE says of it; `Damaged` with the first difference."""
    try:
        files = json.loads((checkpoint / "COMPLETE").read_text(encoding="utf-8"))["files"]
    except (OSError, ValueError, KeyError, TypeError):
        raise Damaged("COMPLETE cannot be read") from None
    for name, expected in files.items():
        path = checkpoint / name
        try:
            found = _digest(path)
        except OSError as error:
            raise Damaged(f"{name}: {error.strerror}") from None
        if found["bytes"] != expected["bytes"]:
            raise Damaged(f"{name}: {found['bytes']} bytes, {expected['bytes']} were written")
        if found != expected:
            raise Damaged(f"{name}: differs from what was written")


def newest_whole(run: Run) -> tuple[int | None, dict[int, str]]:
    """The step to resume from, None where there is none, and why each newer checkpoint is not it."""
    passed_over: dict[int, str] = {}
    for step in reversed(run.steps()):
        checkpoint = run.checkpoint(step)
        if not (checkpoint / ENGINES).is_dir():
            passed_over[step] = "only weights are kept of it"
            continue
        try:
            verify(checkpoint)
        except Damaged as damage:
            passed_over[step] = str(damage)
            continue
        return step, passed_over
    return None, passed_over


def remove_leftovers(run: Run) -> None:
    """Delete what a killed process left half written or half removed."""
    for pattern in (_PARTIAL, _REMOVED):
        for folder in (run.path / "checkpoints").glob(pattern + "*"):
            log.info("%s: removing %s, left by a killed process", run.path, folder.name)
            shutil.rmtree(folder)


def set_aside(run: Run, step: int) -> None:
    """Hide a damaged checkpoint, so that nothing scores it and its step can be written again."""
    hidden = run.checkpoint(step).with_name(_DAMAGED + step_name(step))
    shutil.rmtree(hidden, ignore_errors=True)
    run.checkpoint(step).rename(hidden)


def keep_newest_engines(run: Run, keep: int) -> None:
    """Delete the engines of all but the `keep` newest checkpoints."""
    for step in run.steps()[:-keep]:
        engines = run.checkpoint(step) / ENGINES
        if engines.is_dir():
            _remove(engines, f"{step_name(step)}-{ENGINES}")


def _remove(folder: Path, name: str | None = None) -> None:
    """Out of sight in one rename, then deleted: killed in between, it is not half there."""
    root = folder.parent if name is None else folder.parent.parent
    hidden = root / (_REMOVED + (name or folder.name))
    shutil.rmtree(hidden, ignore_errors=True)
    folder.rename(hidden)
    shutil.rmtree(hidden)


def _digest(path: Path) -> dict[str, int | str]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
        return {"bytes": os.fstat(file.fileno()).st_size, "blake2b": digest}


def _fsync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
