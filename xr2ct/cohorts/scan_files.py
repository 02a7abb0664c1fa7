"""A folder's files into the index of a scan: walked once, read in parallel, each file once for as long as it
stays as it is."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from tqdm import tqdm

from xr2ct.cohorts.processes import cores, spread
from xr2ct.cohorts.scan_index import BROKEN, CLOSED, IMAGE, PASSED, VOLUME, Entry, Read, ScanIndex
from xr2ct.cohorts.series import volume_kind
from xr2ct.errors import WorkFailed

log = logging.getLogger(__name__)

BATCH = 256
"""Files a task: some tenths of a second, so that little is lost with a process."""
FEW = 1024
"""Up to here processes cost more than they save."""


def refresh(index: ScanIndex, workers: int | None = None, hidden: Sequence[Path] = ()) -> None:
    """Bring the index level with the folder that it is of; `hidden` files are passed over.

    Killed at any moment, the same call reads only what is not in the index yet. Raises `WorkFailed` where a
    worker is killed.
    """
    root = index.root
    number = index.begin_walk()
    subfolders: set[str] = set()
    with tqdm(desc="walking", unit="file", disable=None) as bar:
        for folder, entries in walk(root, subfolders, {os.path.realpath(path) for path in hidden}):
            index.note(number, folder, entries)
            bar.update(len(entries))
    index.end_walk(number, subfolders)
    pending = index.count(None)
    if not pending:
        return
    log.debug("%s: %d files to read", root, pending)
    read = partial(read_batch, str(root))
    count = 1 if pending <= FEW else workers or cores()
    batches = index.pending(BATCH)
    results = ((b, read(b)) for b in batches) if count == 1 else spread(read, batches, count)
    with tqdm(desc="reading headers", total=pending, unit="file", disable=None) as bar:
        for batch, found in results:
            if found is None:
                raise WorkFailed(
                    f"{root}: a worker was killed twice, perhaps for want of memory; what is read is kept, "
                    "and the same command continues"
                )
            index.put(batch, found)
            bar.update(len(batch))


def walk(root: Path, subfolders: set[str], hidden: set[str]) -> Iterator[tuple[str, list[Entry]]]:
    """(folder below the root, its files), through symbolic links but never twice into a folder.

    Names that begin with a dot are passed over, and so is what is no regular file: reading a pipe may never
    end. `subfolders` gains the names of the root's own that were entered.
    """
    seen: set[tuple[int, int]] = set()
    folders = [""]
    while folders:
        folder = folders.pop()
        path = os.path.join(root, folder)  # noqa: PTH118 (strings: a million Path objects take a minute)
        try:
            status = os.stat(path)  # noqa: PTH116
            if (status.st_dev, status.st_ino) in seen:
                continue
            with os.scandir(path) as scanned:
                entries = sorted((e for e in scanned if not e.name.startswith(".")), key=lambda e: e.name)
        except OSError as error:
            yield folder, [Entry("", -1, 0, f"{CLOSED}{error.strerror})")]
            continue
        seen.add((status.st_dev, status.st_ino))
        if folder and os.sep not in folder:
            subfolders.add(folder)
        files = []
        for entry in entries:
            try:
                status = entry.stat()
            except OSError as error:  # a dangling link: what it led to may be a slice
                files.append(Entry(entry.name, -1, 0, f"{CLOSED}{error.strerror})"))
                continue
            if stat.S_ISREG(status.st_mode) and not (hidden and os.path.realpath(entry.path) in hidden):
                files.append(Entry(entry.name, status.st_size, status.st_mtime_ns))
        yield folder, files
        # The last pushed comes first: in the order of names.
        for entry in reversed(entries):
            if _is_folder(entry):
                folders.append(f"{folder}{os.sep}{entry.name}" if folder else entry.name)


def read_batch(root: str, batch: list[tuple[str, str]]) -> list[Read]:
    """What each file is. Runs in a worker; needs pydicom and no more where there are no volume files."""
    return [read_file(Path(root, folder, name)) for folder, name in batch]


def read_file(path: Path) -> Read:
    """What a file is, from its first kilobytes."""
    kind = volume_kind(path)
    if kind:
        from xr2ct.cohorts.facts import volume_facts  # here and below: each kind by its own libraries

        try:
            return Read(VOLUME, json.dumps(asdict(volume_facts(path, kind))))
        except ValueError as error:
            return Read(BROKEN, reason=str(error))
    from xr2ct.cohorts.headers import Unreadable, identify

    try:
        image = identify(path)
    except Unreadable as error:
        return Read(BROKEN, reason=str(error))
    if image is None:
        return Read(PASSED)
    instance = hashlib.blake2b(image.instance.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    return Read(
        IMAGE,
        json.dumps(list(vars(image.identity).values())),
        instance if image.instance else None,
        image.position,
    )


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
