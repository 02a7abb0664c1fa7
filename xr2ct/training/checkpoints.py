"""A checkpoint's folder: written whole or not at all, checked before it is used.

It grows as a hidden folder beside its place, gets a COMPLETE with every file's size and digest last of
all, is flushed to the disk and then renamed: a folder called ``step-…`` is whole from its first moment.
What a killed process leaves behind is hidden, and removed when the run is started again. Hidden folders
bear the number of their incarnation, so that no two write into one.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import time
from contextlib import suppress
from pathlib import Path

from xr2ct.run import COMPLETE, Run, is_complete, step_name, step_of
from xr2ct.training.fence import Fence, prepared_by

log = logging.getLogger(__name__)

ENGINES = "engines"
"""The part of a checkpoint that only resuming needs, and that older checkpoints lose."""

_REMOVED = ".removed-"
_DAMAGED = ".damaged-"


class Damaged(Exception):
    """A checkpoint that cannot be used; the text says which file and why."""


def begin(run: Run, step: int, fence: Fence) -> Path:
    """An empty hidden folder to write a checkpoint into."""
    partial = fence.partial(run.checkpoint(step))
    _delete(partial)
    (partial / ENGINES).mkdir(parents=True)
    return partial


def commit(run: Run, step: int, fence: Fence, began: float) -> Path:
    """Make what was written since `begin`, at that `time.monotonic()`, the checkpoint of `step`.

    Raises `Superseded` where a later incarnation has taken over, and `OSError` where it cannot be written or
    the step has a checkpoint already, which is left as it is.
    """
    final = run.checkpoint(step)
    partial = fence.partial(final)
    digests = {str(p.relative_to(partial)): _digest(p) for p in sorted(partial.rglob("*")) if p.is_file()}
    for path in partial.rglob("*"):
        _fsync(path)
    complete = partial / COMPLETE
    about = {"step": step, "seconds": round(time.monotonic() - began, 3), "files": digests}
    complete.write_text(json.dumps(about, indent=1), encoding="utf-8")
    _fsync(complete)
    _fsync(partial)
    fence.commit(final)
    _fsync(final.parent)
    return final


def abandon(run: Run, step: int, fence: Fence) -> None:
    """Delete what was written since `begin`, so that a full disk has the room again."""
    _delete(fence.partial(run.checkpoint(step)))


def verify(checkpoint: Path) -> None:
    """Compare every file with what COMPLETE says of it; `Damaged` with the first difference."""
    try:
        files = json.loads((checkpoint / COMPLETE).read_text(encoding="utf-8"))["files"]
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


def leftovers(run: Run) -> list[Path]:
    """What is hidden in a run: half written, half removed, or a damaged checkpoint set aside.

    Half-written files and folders may be those of a process at work.
    """
    patterns = (".partial-*", _REMOVED + "*", _DAMAGED + "*")
    return sorted(path for folder in (run.path, _folder(run)) for p in patterns for path in folder.glob(p))


def remove(path: Path) -> None:
    """Delete a checkpoint, its engines/ or a leftover: out of sight in one rename, so never half there.

    Raises `FileNotFoundError` where it is not there any more.
    """
    if path.name.startswith(_REMOVED):
        _delete(path)
        return
    if path.name == ENGINES:
        hidden = path.parent.with_name(f"{_REMOVED}{path.parent.name}-{ENGINES}")
    else:
        hidden = path.with_name(_REMOVED + path.name)
    _delete(hidden)
    path.rename(hidden)
    _delete(hidden)


def remove_leftovers(run: Run, fence: Fence) -> None:
    """Delete what earlier incarnations left half written or half removed; damaged ones stay.

    Half-written ones first disappear under another name in one rename: a survivor that would commit one
    finds it gone.
    """
    for path in leftovers(run):
        number = prepared_by(path)
        if path.name.startswith(_REMOVED) or (number is not None and number < fence.number):
            log.info("%s: removing %s, left by an earlier start", run.path, path.name)
            with suppress(FileNotFoundError):  # committed by a survivor in this very moment
                remove(path)
    for folder in _folder(run).glob("step-*"):
        if not is_complete(folder):
            log.warning("%s: %s has no COMPLETE in it, and is set aside", run.path, folder.name)
            set_aside(run, step_of(folder))


def set_aside(run: Run, step: int) -> None:
    """Hide a damaged checkpoint, so that nothing scores it and its step can be written again."""
    hidden = run.checkpoint(step).with_name(_DAMAGED + step_name(step))
    _delete(hidden)
    run.checkpoint(step).rename(hidden)


def keep_newest_engines(run: Run, keep: int, fence: Fence) -> None:
    """Delete the engines of all but the `keep` newest checkpoints; `Superseded` where these are another's."""
    fence.check()
    for step in run.steps()[:-keep]:
        engines = run.checkpoint(step) / ENGINES
        if engines.is_dir():
            remove(engines)


def _folder(run: Run) -> Path:
    return run.path / "checkpoints"


def _delete(path: Path) -> None:
    """A file or folder, as far as it lets itself be; what stays is hidden, and the next start tries again."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


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
