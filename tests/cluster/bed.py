"""A Slurm of the tests' own: its jobs looked at, its nodes made to fail, the processes of its tasks found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
SCRIPTS = REPOSITORY / "slurm" / "devcluster"
SITE = Path(__file__).with_name("site")
ENDED = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"})


class Slow(AssertionError):
    """Something waited for did not come."""


def wait_until(what: str, true: Callable[[], Any], timeout_s: float = 600.0, every_s: float = 0.25) -> Any:
    """The first truth that `true` returns; `Slow` naming what was waited for."""
    last = time.monotonic() + timeout_s
    while not (value := true()):
        if time.monotonic() > last:
            raise Slow(f"not within {timeout_s:.0f} s: {what}")
        time.sleep(every_s)
    return value


class Bed:
    """One instance of slurm/devcluster in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def up(self, *options: str) -> None:
        self._script("up", *options)

    def down(self) -> None:
        self._script("down")

    def node(self, name: str, action: str, *options: str) -> None:
        """start, stop or kill a node's slurmd; with --tasks its tasks too."""
        self._script("node", name, action, *options)

    def _script(self, name: str, *words: str) -> None:
        call = [sys.executable, str(SCRIPTS / name), *words, "--dir", str(self.folder)]
        done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def environment(self) -> dict[str, str]:
        """What commands on this cluster's login side run under."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("SLURM_", "XR2CT_", "PYTEST_"))}
        return {
            **inherited,
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": os.pathsep.join([str(SITE), str(REPOSITORY)]),
            "OMP_NUM_THREADS": "1",
            "DS_ACCELERATOR": "cpu",
        }

    def run(
        self, *words: str | Path, expect: int | None = 0, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """A command on the login side; None expects nothing of its exit code."""
        done = subprocess.run(
            [str(word) for word in words],
            env={**self.environment(), **variables},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        said = f"{' '.join(map(str, words))}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        assert expect is None or done.returncode == expect, said
        return done

    def xr2ct(self, *words: str | Path, expect: int | None = 0) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "xr2ct.cli", *words, expect=expect)

    def state(self, job: str) -> str:
        """Slurm's state of a job or of one member of an array, ``123_0``; "" where it is unknown."""
        return self.fields(job).get("JobState", "")

    def fields(self, job: str) -> dict[str, str]:
        """What scontrol says of a job."""
        said = self.run("scontrol", "--oneliner", "show", "job", job, expect=None).stdout.strip()
        line = said.splitlines()[0] if said else ""
        return dict(word.split("=", 1) for word in line.split() if "=" in word)

    def restarts(self, job: str) -> int:
        return int(self.fields(job).get("Restarts", 0))

    def wait_state(self, job: str, *states: str, timeout_s: float = 600.0) -> str:
        """Until a job is in one of these states; the state."""
        found: str = wait_until(
            f"job {job} is {' or '.join(states)}",
            lambda: state if (state := self.state(job)) in states else None,
            timeout_s,
            every_s=0.5,
        )
        return found

    def wait_ended(self, job: str, timeout_s: float = 600.0) -> str:
        return self.wait_state(job, *ENDED, timeout_s=timeout_s)

    def wait_restart(self, job: str, number: int = 1, timeout_s: float = 600.0) -> None:
        """Until a requeued job runs for the `number`-th time again."""
        wait_until(
            f"job {job} runs again ({number})",
            lambda: (f := self.fields(job)).get("JobState") == "RUNNING" and int(f["Restarts"]) >= number,
            timeout_s,
            every_s=0.5,
        )

    def rank_process(self, job: str, rank: int, restart: int = 0) -> int:
        """The process of a rank of a member ``123_0``; its interpreter, not what it forked."""
        wanted = {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "XR2CT_JOB": job,
            "XR2CT_RESTART": str(restart),
            "SLURM_PROCID": str(rank),
        }
        found = [number for number in processes_with(wanted) if is_task(command_line(number))]
        tops = [number for number in found if parent(number) not in found]
        assert len(tops) == 1, f"rank {rank} of {job}: processes {tops}"
        return tops[0]


def processes_with(variables: Mapping[str, str]) -> list[int]:
    """Processes with these variables in their environment."""
    wanted = {os.fsencode(f"{name}={value}") for name, value in variables.items()}
    found = []
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            try:
                held = set((path / "environ").read_bytes().split(b"\0"))
            except OSError:
                continue
            if wanted <= held:
                found.append(int(path.name))
    return found


def command_line(number: int) -> list[bytes]:
    try:
        return Path(f"/proc/{number}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return []


def is_task(words: list[bytes]) -> bool:
    """Python running submitit's task; srun and a wrapper have that among their arguments."""
    return b"submitit.core._submit" in words and b"python" in words[0].rpartition(b"/")[2]


def parent(number: int) -> int:
    try:
        return int(Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[1])
    except OSError:
        return 0


def alive(number: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        state = Path(f"/proc/{number}/stat").read_bytes().rpartition(b")")[2].split()[0]
    except OSError:
        return False
    return state not in (b"Z", b"X")


def lines_of(path: Path) -> list[dict[str, Any]]:
    """A JSON lines file's objects; none where there is no file."""
    return (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    )
