"""Files that are made once by whoever comes first, on any file system with hard links, without a lock."""

from __future__ import annotations

import errno
import os
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from xr2ct.errors import WorkFailed


def create(path: Path, text: str) -> bool:
    """Make a file whole, or leave the one that is there: a temporary file, fsync, link, fsync of the folder.

    Of any number of processes at once one gets True. Raises `WorkFailed` on a file system without hard links.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _hidden(path)
    try:
        with temporary.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        return _link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def remove_if(path: Path, unwanted: Callable[[Path], bool]) -> bool:
    """Take a file away if it is `unwanted`, never one that another process put in its place meanwhile."""
    if not path.exists() or not unwanted(path):
        return False
    aside = _hidden(path)
    try:
        path.rename(aside)
    except FileNotFoundError:
        return False
    try:
        if unwanted(aside):
            return True
        _link(aside, path)
        return False
    finally:
        aside.unlink(missing_ok=True)


def _link(file: Path, path: Path) -> bool:
    try:
        os.link(file, path)
    except FileExistsError:
        # Over NFS the answer to a link that was made may be lost and the request sent again.
        with suppress(FileNotFoundError):  # taken away by another process meanwhile
            return path.samefile(file)
        return False
    except OSError as error:
        if error.errno in (errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            raise WorkFailed(
                f"{path.parent}: the file system makes no hard links ({error.strerror}); "
                "results are committed by them, so put the runs elsewhere"
            ) from None
        raise
    _sync_folder(path.parent)
    return True


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # some network file systems refuse it on folders
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _hidden(path: Path) -> Path:
    return path.with_name(f".{path.name}.{uuid.uuid4().hex}")
