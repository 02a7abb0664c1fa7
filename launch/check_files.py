"""Whether the folders that training needs can be written, locked and renamed in."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from launch.check import Failed, Rank, Skipped
from launch.units import format_bytes
from xr2ct.locks import alone

_ROOM_BYTES = 10**9
_CONTENDER = """
import sys
from pathlib import Path
from xr2ct.locks import alone
try:
    with alone(Path(sys.argv[1])):
        sys.exit(3)
except TimeoutError:
    sys.exit(0)
"""


def scratch(rank: Rank) -> str:
    folder = _scratch_folder(rank)
    _writable(folder)
    return f"{folder} writable, {_free(folder)}"


def scratch_locks(rank: Rank) -> str:
    with _own_file(_scratch_folder(rank)) as path:
        _contend(path)
    return "a lock held by one process keeps another out"


def run_root(rank: Rank) -> str:
    with _own_file(rank.folder) as path:
        _contend(path)
        linked = path.with_name(path.name + ".link")
        os.link(path, linked)
        try:
            os.link(path, linked)
            raise Failed("the same link could be made twice: results would not be committed once")
        except FileExistsError:
            pass
        linked.replace(path)
        # Renaming one of two names of a file onto the other does nothing, says POSIX; some systems differ.
        linked.unlink(missing_ok=True)
        other = path.with_name(path.name + ".other")
        other.write_text("other", encoding="utf-8")
        other.replace(path)
        if path.read_text(encoding="utf-8") != "other":
            raise Failed("a file renamed onto another did not replace it")
    return f"links, renames and locks hold in {rank.folder.parent}, {_free(rank.folder)}"


def local_disk(rank: Rank) -> str:
    if not rank.profile.local_disk:
        raise Skipped("the profile names none; stores are read where they are")
    folder = Path(os.path.expandvars(rank.profile.local_disk))
    _writable(folder)
    free = _free_bytes(folder)
    if free < _ROOM_BYTES:
        raise Failed(f"{folder}: {format_bytes(free)} free")
    return f"{folder} writable, {format_bytes(free)} free"


def _scratch_folder(rank: Rank) -> Path:
    """The profile's, or where libraries keep their caches without one."""
    stated = rank.profile.scratch
    return Path(os.path.expandvars(stated)) if stated else Path.home() / ".cache"


@contextmanager
def _own_file(folder: Path) -> Iterator[Path]:
    """A file that no other rank uses, gone afterwards."""
    folder.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=".xr2ct-doctor-", dir=folder)
    os.close(descriptor)
    try:
        yield Path(name)
    finally:
        Path(name).unlink(missing_ok=True)


def _writable(folder: Path) -> None:
    try:
        with _own_file(folder) as path:
            path.write_bytes(bytes(1 << 20))
            with path.open("rb") as file:
                os.fsync(file.fileno())
            if path.stat().st_size != 1 << 20:
                raise Failed(f"{folder}: a file of 1 MB came back with {path.stat().st_size} bytes")
    except OSError as error:
        raise Failed(f"{folder}: {error.strerror}") from None


def _contend(path: Path) -> None:
    """Hold a lock and let another process of this node try to take it."""
    try:
        with alone(path):
            other = subprocess.run([sys.executable, "-c", _CONTENDER, str(path)], check=False, timeout=60)
    except OSError as error:
        raise Failed(f"{path.parent}: no file locks there ({error.strerror})") from None
    if other.returncode == 3:
        raise Failed(f"{path.parent}: two processes could hold the same lock")
    if other.returncode != 0:
        raise Failed(f"{path.parent}: the process that should try the lock ended with {other.returncode}")


def _free(folder: Path) -> str:
    return f"{format_bytes(_free_bytes(folder))} free"


def _free_bytes(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize
