"""One at a time, over threads and processes."""

from __future__ import annotations

import errno
import fcntl
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.1
_held_here: defaultdict[Path, threading.Lock] = defaultdict(threading.Lock)


@contextmanager
def alone(path: Path, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock file `path`; `TimeoutError` where another holds it for longer than `wait_s`.

    A record lock: it goes with its process however that ends, and no forked worker inherits it. What is in
    the file stays there. Raises `OSError` on a file system without such locks.
    """
    deadline = time.monotonic() + wait_s
    # Within a process record locks keep nobody out, and closing any descriptor of the file lets go of them.
    here = _held_here[path.absolute()]
    if not here.acquire(timeout=wait_s):
        raise TimeoutError(f"{path} is held by another thread")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            while not _taken(file.fileno()):
                if time.monotonic() >= deadline:
                    raise TimeoutError(f"{path} is held by another process")
                time.sleep(_POLL_S)
            yield
    finally:
        here.release()


def _taken(descriptor: int) -> bool:
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EAGAIN):
            return False
        raise
    return True
