"""The daemons of a one-machine Slurm as processes: started, found again by pid file, ended."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from layout import Cluster


class Failed(Exception):
    """Said as one line, without a traceback."""


def environment(cluster: Cluster) -> dict[str, str]:
    """What every daemon and command of this instance runs under. SLURM_CONF also marks its processes."""
    return {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8",
        "SLURM_CONF": str(cluster.conf),
        "MYSQL_UNIX_PORT": str(cluster.database_socket),
    }


def command(cluster: Cluster, *words: str, timeout_s: float = 30.0) -> str:
    """Output of a command of this instance; `Failed` with what it said."""
    done = subprocess.run(
        words, env=environment(cluster), capture_output=True, text=True, timeout=timeout_s, check=False
    )
    if done.returncode != 0:
        raise Failed(
            f"{' '.join(words)} ended with {done.returncode}: {(done.stderr or done.stdout).strip()}"
        )
    return done.stdout


def start(cluster: Cluster, name: str, words: Sequence[str]) -> None:
    """A daemon in the background, its output in `name`.out, its process number in `name`.pid."""
    with (cluster.folder / f"{name}.out").open("ab") as said:
        process = subprocess.Popen(
            words,
            env=environment(cluster),
            cwd=cluster.folder,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            start_new_session=True,
        )
    (cluster.folder / f"{name}.pid").write_text(f"{process.pid}\n", encoding="ascii")


def wait(cluster: Cluster, name: str, ready: Callable[[], bool], timeout_s: float = 60.0) -> None:
    """Until `ready`; `Failed` naming what the daemon said when it has died or that takes too long."""
    last = time.monotonic() + timeout_s
    while not ready():
        if pid(cluster, name) is None or time.monotonic() > last:
            state = "has ended" if pid(cluster, name) is None else f"is not ready after {timeout_s:.0f} s"
            raise Failed(f"{name} {state}; see {cluster.folder}/{name}.out")
        time.sleep(0.2)


def pid(cluster: Cluster, name: str) -> int | None:
    """The daemon's process where it lives. A number that has gone to somebody else's process is nobody."""
    try:
        number = int((cluster.folder / f"{name}.pid").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return None
    return number if belongs(number, f"SLURM_CONF={cluster.conf}") else None


def belongs(number: int, *variables: str) -> bool:
    """Whether a live process (no zombie) has all of these VARIABLE=VALUE in its environment."""
    try:
        held = Path(f"/proc/{number}/environ").read_bytes().split(b"\0")
        dead = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    except OSError:
        return False
    return not dead and all(os.fsencode(variable) in held for variable in variables)


def stop(cluster: Cluster, name: str, timeout_s: float = 20.0) -> None:
    """Ask a daemon to end; kill it when it does not."""
    number = pid(cluster, name)
    if number is not None:
        os.kill(number, signal.SIGTERM)
        last = time.monotonic() + timeout_s
        while pid(cluster, name) is not None:
            if time.monotonic() > last:
                os.kill(number, signal.SIGKILL)
            time.sleep(0.1)
    (cluster.folder / f"{name}.pid").unlink(missing_ok=True)


def kill(cluster: Cluster, name: str) -> None:
    """As a power cut would end a daemon."""
    number = pid(cluster, name)
    if number is not None:
        os.kill(number, signal.SIGKILL)
    (cluster.folder / f"{name}.pid").unlink(missing_ok=True)


def kill_tasks(cluster: Cluster, node: str) -> None:
    """SIGKILL everything that runs on a node: each slurmstepd and all that descends from it."""
    while found := tasks(cluster, node):
        for number in found:
            # Its parent may have been first and taken it along.
            try:
                os.kill(number, signal.SIGKILL)
            except ProcessLookupError:
                continue
        time.sleep(0.1)


def tasks(cluster: Cluster, node: str) -> set[int]:
    """Processes of the jobs on a node, their slurmstepd included.

    slurmstepd lives on when slurmd dies and writes over its own environment, so it is known as the parent of
    a task or by its socket; a container may clear a task's environment, so tasks are also known by descent.
    """
    numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
    parents = {number: parent for number in numbers if (parent := parent_of(number)) is not None}
    mine = {
        number
        for number in numbers
        if belongs(number, f"SLURM_CONF={cluster.conf}", f"SLURMD_NODENAME={node}")
    }
    mine |= {parents[n] for n in mine if n in parents and name_of(parents[n]) == "slurmstepd"}
    mine |= {n for n in parents if name_of(n) == "slurmstepd" and serves(n, cluster.folder / "spool" / node)}
    while more := {number for number, parent in parents.items() if parent in mine} - mine:
        mine |= more
    return mine & set(parents)


def parent_of(number: int) -> int | None:
    """None for a process that is gone, or dead and not yet waited for."""
    try:
        state, parent = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[:2]
    except OSError:
        return None
    return None if state in (b"Z", b"X") else int(parent)


def name_of(number: int) -> str:
    try:
        return Path(f"/proc/{number}/comm").read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def serves(number: int, spool: Path) -> bool:
    """Whether a process holds one of the sockets in a node's spool folder."""
    inodes = set()
    for line in Path("/proc/net/unix").read_text(encoding="utf-8").splitlines()[1:]:
        fields = line.split(None, 7)
        if len(fields) == 8 and fields[7].startswith(f"{spool}/"):
            inodes.add(f"socket:[{fields[6]}]")
    try:
        return any(str(link.readlink()) in inodes for link in Path(f"/proc/{number}/fd").iterdir())
    except OSError:
        return False
