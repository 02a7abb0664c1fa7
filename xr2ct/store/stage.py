"""A node's own copy of what training reads of a store, on its local disk.

TO/STORE-KEY/           a store that `Store.open` opens, with what one run reads of it
TO/STORE-KEY/COMPLETE   written last: everything is there
TO/.STORE-KEY.lock      held by whoever copies

KEY is a hash of all that the copy is to hold: a store that has changed gets a copy of its own, and a run that
began with the old one goes on reading that.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from xr2ct.errors import UserError, WorkFailed, nearest
from xr2ct.locks import alone
from xr2ct.run import write_atomically
from xr2ct.store import layout
from xr2ct.store.layout import StoreError, ct_array, xray_array
from xr2ct.store.read import Store, chunk_problem

log = logging.getLogger(__name__)

_THREADS = 8
"""Network disks give one reader a fraction of what they have."""
_BLOCK = 8 << 20
_TURN_S = 2.0
"""How long a wait for another's copy lasts before the caller is heard again."""


@dataclass(frozen=True)
class _Chunk:
    """One row of one array."""

    case: str
    array: str
    file: str
    """In the store and in the copy alike."""
    checksum: str
    size: int
    """Bytes."""


def staged(
    store: Path,
    to: Path,
    size: int,
    geometry: str,
    cases: Collection[str] | None = None,
    tick: Callable[[], None] = lambda: None,
    *,
    context_side: int | None = None,
) -> Path:
    """A whole copy of the store below the node-local folder `to`, made where it is not there yet.

    The copy has the volumes of `size`, those of `context_side` where there is one, and the X-rays of
    `geometry`, of the `cases` named, or of all that are not excluded; every case's file is there whichever
    are copied, so that its `checksum(size, geometry)` is the store's. One process a node copies, others wait
    for it. Every chunk is compared with its checksum on every call, those that an earlier one left too: what
    is missing or damaged is copied, the rest stays. `tick` is called after each chunk and while waiting; what
    it raises ends the call, and the next goes on.

    Raises `UserError` for a size, geometry or case that the store has not, `StoreError` naming the case where
    the store itself is damaged, and `WorkFailed` naming the profile's `local_disk` where `to` cannot hold it.
    """
    store, to = Path(store), Path(to)
    sizes = [size] if context_side is None else sorted({size, context_side})
    texts, chunks = _contents(store, sizes, geometry, cases)
    key = hashlib.sha256(json.dumps([sorted(texts.items()), [vars(c) for c in chunks]]).encode()).hexdigest()
    copy = to / f"{store.resolve().name}-{key[:16]}"
    try:
        with _held(to / f".{copy.name}.lock", tick):
            _bring_level(store, copy, texts, chunks, tick)
    except OSError as error:
        raise WorkFailed(
            f"{copy}: cannot be written ({error.strerror or error}): the profile's local_disk must name a "
            "folder on the node's own disk that you may write to"
        ) from error
    return copy


def _contents(
    store: Path, sizes: list[int], geometry: str, cases: Collection[str] | None
) -> tuple[dict[str, str], list[_Chunk]]:
    """What the copy is to hold: small files with their text, and chunks."""
    source = Store.open(store)
    if missing := [size for size in sizes if size not in source.sizes]:
        valid = ", ".join(map(str, source.sizes))
        raise UserError(f"{store}: no volumes of size {missing[0]} (valid: {valid})")
    pixels, views = source.geometries, len(source.angles(geometry))
    unknown = set(cases or ()) - {c.id for c in source.cases}
    if unknown:
        raise UserError(
            f"{store}: no case {min(unknown)!r}; {nearest(min(unknown), [c.id for c in source.cases])}"
        )
    arrays = {ct_array(size): 2 * size**3 for size in sizes}
    arrays[xray_array(geometry)] = 4 * views * pixels[geometry].pixels ** 2
    chunks = [
        _Chunk(
            case.id,
            array,
            str(layout.chunk_file(Path(), array, case.row)),
            case.attributes["checksums"][array],
            volume,
        )
        for case in source.cases
        if cases is None or case.id in cases
        for array, volume in arrays.items()
    ]
    files = [layout.case_file(store, c["id"]) for c in layout.group_attributes(store)["cases"]]
    files += [store / name / "zarr.json" for name in ("ct", "xray", *arrays)]
    files += [f for f in [layout.exclude_file(store)] if f.is_file()]
    texts = {str(f.relative_to(store)): f.read_text(encoding="utf-8") for f in files}
    group = json.loads((store / "zarr.json").read_text(encoding="utf-8"))
    # Without the arrays that are not copied: to ask for one must be refused by its name.
    group["attributes"] |= {"sizes": sizes, "geometries": [geometry]}
    texts["zarr.json"] = json.dumps(
        group, indent=1
    )  # last: before it is there nothing takes this for a store
    return texts, chunks


@contextmanager
def _held(lock: Path, tick: Callable[[], None]) -> Iterator[None]:
    """Hold the lock, however long another holds it: a copy of hundreds of gigabytes takes its time."""
    told = False
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(alone(lock, _TURN_S))
                break
            except TimeoutError:
                if not told:
                    log.info("%s: another process of this node is copying; waiting for it", lock)
                told = True
                tick()
        yield


def _bring_level(
    store: Path, copy: Path, texts: dict[str, str], chunks: list[_Chunk], tick: Callable[[], None]
) -> None:
    began = time.monotonic()
    for torn in copy.glob("*/*/c/*/0/0/.*.partial"):  # a killed call's
        torn.unlink()
    wrong = _wrong(copy, chunks, tick)
    needed = sum(c.size for c in wrong)
    complete = copy / "COMPLETE"
    try:
        if wrong:
            complete.unlink(missing_ok=True)
            _check_space(copy, needed)
            _work(wrong, lambda chunk: _copy(store, copy, chunk), tick)
        for name, text in texts.items():
            file = copy / name
            if not file.is_file() or file.read_text(encoding="utf-8") != text:
                write_atomically(file, text)
        if not complete.is_file():
            write_atomically(complete, "")
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(copy, needed) from error
        raise
    log.info(
        "%s: %d chunks copied from %s (%.2f GB), %d were there; %.1f s",
        copy,
        len(wrong),
        store,
        needed / 1e9,
        len(chunks) - len(wrong),
        time.monotonic() - began,
    )


def _wrong(copy: Path, chunks: list[_Chunk], tick: Callable[[], None]) -> list[_Chunk]:
    """Those that the copy has not, or not as they should be."""
    wrong = []

    def check(chunk: _Chunk) -> None:
        file = copy / chunk.file
        if not file.is_file():
            wrong.append(chunk)
        elif problem := chunk_problem(file, chunk.checksum):
            log.warning(
                "%s: case %s: its chunk of %s %s; copied again", copy, chunk.case, chunk.array, problem
            )
            wrong.append(chunk)

    _work(chunks, check, tick)
    return sorted(wrong, key=lambda c: c.file)


def _work(chunks: list[_Chunk], do: Callable[[_Chunk], None], tick: Callable[[], None]) -> None:
    """Each chunk in a thread; the first failure, and whatever `tick` raises, ends it with no thread left."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting = [pool.submit(do, chunk) for chunk in chunks]
        try:
            for done in as_completed(waiting):
                done.result()
                tick()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _copy(store: Path, copy: Path, chunk: _Chunk) -> None:
    """One chunk, whole or not at all, checked as it goes by."""
    target = copy / chunk.file
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}.partial")
    try:
        # Not forced to disk: what a node loses with its power the next call finds missing or damaged.
        checksum = _pour(store, chunk, partial)
        if checksum != chunk.checksum:
            raise StoreError(
                f"{store}: case {chunk.case}: its chunk of {chunk.array} differs from its checksum "
                f"({store / chunk.file})"
            )
        partial.replace(target)
    finally:
        partial.unlink(missing_ok=True)


def _pour(store: Path, chunk: _Chunk, target: Path) -> str:
    """Copy and return the SHA-256 of what was read."""
    digest = hashlib.sha256()
    try:
        source = (store / chunk.file).open("rb")
    except OSError as error:
        raise _unreadable(store, chunk, error) from None
    with source, target.open("wb") as out:
        while True:
            try:
                block = source.read(_BLOCK)
            except OSError as error:
                raise _unreadable(store, chunk, error) from None
            if not block:
                return digest.hexdigest()
            digest.update(block)
            out.write(block)


def _unreadable(store: Path, chunk: _Chunk, error: OSError) -> StoreError:
    file = store / chunk.file
    return StoreError(
        f"{store}: case {chunk.case}: its chunk of {chunk.array} cannot be read ({error.strerror}: {file})"
    )


def _check_space(copy: Path, needed: int) -> None:
    """Before the first byte: a disk that is full only at the end has cost an hour."""
    copy.mkdir(parents=True, exist_ok=True)
    if needed > shutil.disk_usage(copy).free:
        raise _no_space(copy, needed)


def _no_space(copy: Path, needed: int) -> WorkFailed:
    free = shutil.disk_usage(copy).free
    told = f"{copy}: {_gb(needed)} more are needed and {_gb(free)} are free on this node's disk: "
    told += "the profile's local_disk must name a larger one; without the key the shared store is read"
    others = [p for p in sorted(copy.parent.glob("*-" + "[0-9a-f]" * 16)) if p != copy]
    if others:
        taken = sum(f.stat().st_size for other in others for f in other.rglob("*") if f.is_file())
        told += f"\nother copies beside it take {_gb(taken)}: {', '.join(p.name for p in others)}"
    return WorkFailed(told)


def _gb(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e7 else f"{count / 1e6:.2f} MB"
