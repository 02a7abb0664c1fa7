"""What Slurm says: of jobs, and of the site's limits.

Whether a job lives is slurmctld's to say alone (`squeue`); what became of one that it has forgotten is
slurmdbd's (`sacct`), where the site has accounting. Nobody answering is an error, never "gone". Ids are
those of array members, ``123_0``; ``123`` stands for the whole array, or for a job that is none.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from xr2ct.errors import WorkFailed

LOST = "LOST"
"""Our word for a job that accounting believes to live and slurmctld does not have."""
ENDED = frozenset(
    ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "LAUNCH_FAILED", LOST, "NODE_FAIL",
     "OUT_OF_MEMORY", "PREEMPTED", "RECONFIG_FAIL", "REVOKED", "TIMEOUT")
)  # fmt: skip
"""States that a job does not leave again. All others live: they wait, run, end, or will be run anew."""

_ANSWER_S = 90.0
"""A loaded slurmctld may take a minute; MessageTimeout, Slurm's own limit for one message, is 10 s."""
_AT_ONCE = 1000
"""Job ids in one command line."""
_RANGE_SHOWN = re.compile(r"(\d+)_\[([\d,\-:]+)(?:%\d+)?\]")
_SQUEUE = ("JobArrayID", "State", "NodeList", "Reason", "RestartCnt", "TimeUsed", "TimeLeft", "exit_code")
_SACCT = ("JobID", "State", "NodeList", "ElapsedRaw", "ExitCode", "Submit")


@dataclass(frozen=True)
class JobState:
    """One array member, as Slurm sees it now."""

    id: str
    state: str
    """Slurm's word: PENDING, RUNNING, COMPLETED, TIMEOUT, …"""
    node: str
    """As Slurm writes it, ``n[1-2]``; empty while none is given."""
    reason: str
    """Why it waits or was ended; empty where Slurm gives none."""
    restarts: int
    elapsed_s: float | None
    """Of this attempt."""
    left_s: float | None
    """To the time limit; None without one, or where the job does not run."""
    exit: str
    """``code:signal`` of the host script; empty while it has none."""

    @property
    def alive(self) -> bool:
        return self.state not in ENDED


def job_states(ids: Collection[str]) -> dict[str, JobState]:
    """Every one of `ids` that Slurm knows, from slurmctld, and from accounting where it has forgotten them.

    A job that has ended and that nobody remembers is absent. Raises `WorkFailed` where slurmctld does not
    answer, or slurmdbd is needed and does not.
    """
    wanted = set(ids)
    found = queued(wanted)
    forgotten = wanted - found.keys()
    if forgotten and has_accounting():
        found |= _chosen(forgotten, map(_not_alive, _accounting(forgotten)))
    return found


def queued(ids: Collection[str]) -> dict[str, JobState]:
    """Those of `ids` that slurmctld still has: all that live, and what ended in the last minutes.

    Raises `WorkFailed` where slurmctld does not answer.
    """
    return _chosen(set(ids), _queue(ids))


def alive(ids: Collection[str]) -> set[str]:
    """Those of `ids` that wait, run, or are about to run again.

    Raises `WorkFailed` where slurmctld does not answer.
    """
    return {id for id, job in queued(ids).items() if job.alive}


def cancel(ids: Collection[str]) -> None:
    """End jobs, or take them out of the queue; those that have ended already are no error."""
    for some in _portions(ids):
        _ask("scancel", *some)


def signal_host(id: str, name: str) -> None:
    """Send a signal, ``USR1``, to a job's batch script alone, as Slurm does before a time limit."""
    _ask("scancel", "--batch", f"--signal={name}", id)


def nodes_of(partition: str | None) -> int:
    """Nodes of a partition, of the default one where None."""
    chosen = [f"--partition={partition}"] if partition else []
    rows = [row.split() for row in _ask("sinfo", "--noheader", "--format=%P %D", *chosen).splitlines()]
    return sum(int(nodes) for name, nodes in rows if partition or name.endswith("*"))


def longest_min(partition: str | None) -> float | None:
    """The longest time limit, in minutes, that a partition gives, the default one where None; None: any.

    Slurm takes a job that asks for more, and by its default never starts it.
    """
    chosen = [f"--partition={partition}"] if partition else []
    rows = [row.split() for row in _ask("sinfo", "--noheader", "--format=%P %l", *chosen).splitlines()]
    limits = [_seconds(limit) for name, limit in rows if partition or name.endswith("*")]
    return None if None in limits or not limits else max(s for s in limits if s is not None) / 60


def forbid_requeue(ids: Collection[str]) -> None:
    """Let nothing, nor Slurm itself, bring these jobs back; those that have ended are left as they are."""
    for id in ids:
        try:
            _ask("scontrol", "update", f"JobId={id}", "Requeue=0")
        except WorkFailed:
            if alive([id]):
                raise


def array_named(name: str) -> str | None:
    """The id of this user's array of that name, while slurmctld has it."""
    text = _ask("squeue", "--me", "--noheader", "--states=all", f"--name={name}", "--format=%F")
    return text.split()[0] if text.strip() else None


def expand(nodes: str) -> list[str]:
    """``n[1-2]`` as n1, n2."""
    return _ask("scontrol", "show", "hostnames", nodes).split() if nodes else []


def config() -> dict[str, str]:
    """slurmctld's configuration, `scontrol show config`."""
    lines = (line.partition("=") for line in _ask("scontrol", "show", "config").splitlines())
    return {key.strip(): value.strip() for key, equals, value in lines if equals}


def has_accounting() -> bool:
    """Whether the site keeps what became of jobs in slurmdbd."""
    return _accounted(config())


def _accounted(settings: Mapping[str, str]) -> bool:
    return settings.get("AccountingStorageType", "").removeprefix("accounting_storage/") == "slurmdbd"


def max_array_size() -> int:
    """Members that one array may have: their indices stay below this."""
    return int(config().get("MaxArraySize", "1001"))


def has_scrontab() -> bool:
    """Whether the site lets its users have Slurm run something by the clock."""
    return "enable" in config().get("ScronParameters", "").split(",") and shutil.which("scrontab") is not None


def submission_room(account: str | None = None, qos: str | None = None) -> int:
    """Jobs, array members counted one by one, that this user may still submit under an account and a QoS, the
    default ones where None.

    MaxSubmitJobs and GrpSubmitJobs of the association, MaxSubmitJobsPU and GrpSubmitJobs of the QoS, and
    slurmctld's MaxJobCount. Limits of a group are counted as if nobody else used them, so the answer may be
    too high; sbatch refuses then.
    """
    settings = config()
    shown = _ask("squeue", "--me", "--array", "--noheader", "--format=%a|%q").splitlines()
    room = [int(settings.get("MaxJobCount", "10000")) - len(shown)]
    if "limits" in settings.get("AccountingStorageEnforce", "") and _accounted(settings):
        queued = [tuple(line.split("|")) for line in shown]
        user = _ask("id", "-un").strip()
        account = account or _sacctmgr("user", user, "format=DefaultAccount").strip()
        told = _sacctmgr(
            "associations", f"user={user}", f"account={account}", "format=MaxSubmit,GrpSubmit,DefaultQOS"
        )
        *limits, default = (told.splitlines() or ["||"])[0].split("|")
        qos = qos or default or "normal"
        room += [int(n) - sum(a == account for a, _ in queued) for n in limits if n.isdigit()]
        limits = _sacctmgr("qos", qos, "format=MaxSubmitPU,GrpSubmit").replace("|", "\n").split()
        room += [int(n) - sum(q == qos for _, q in queued) for n in limits if n.isdigit()]
    return max(0, min(room))


def _sacctmgr(*question: str) -> str:
    return _ask("sacctmgr", "--noheader", "--parsable2", "show", *question)


def _queue(ids: Collection[str]) -> Iterator[JobState]:
    """What slurmctld has of the jobs that `ids` are members of."""
    for some in _portions({_array(id) for id in ids}):
        # A suffix of our own: columns are padded and cut to 20 characters otherwise, and reasons hold spaces.
        shown = ",".join(f"{field}:.200|" for field in _SQUEUE)
        try:
            text = _ask("squeue", "--array", "--noheader", "--states=all", f"--jobs={','.join(some)}",
                        f"--Format={shown}")  # fmt: skip
        except WorkFailed as error:
            if "Invalid job id" not in str(error):
                raise
            continue  # said of a single job that it has forgotten
        for line in text.splitlines():
            id, state, node, reason, restarts, used, left, code = (f.strip() for f in line.split("|")[:8])
            running = state in ("RUNNING", "SUSPENDED", "COMPLETING")
            yield JobState(
                id=id,
                state=state,
                node=_told(node),
                reason=_told(reason),
                restarts=int(restarts) if restarts.isdigit() else 0,
                elapsed_s=_seconds(used),
                left_s=_seconds(left) if running else None,
                exit=_exit(code) if state in ENDED else "",
            )


def _accounting(ids: Collection[str]) -> Iterator[JobState]:
    """What slurmdbd has of the jobs that `ids` are members of; each attempt is a row, the last one counts."""
    attempts: defaultdict[str, list[tuple[str, JobState]]] = defaultdict(list)
    for some in _portions({_array(id) for id in ids}):
        text = _ask("sacct", "--parsable2", "--noheader", "--allocations", "--duplicates",
                    f"--jobs={','.join(some)}", f"--format={','.join(_SACCT)}")  # fmt: skip
        for line in text.splitlines():
            shown, state, node, elapsed, code, submitted = line.split("|")
            elapsed_s = float(elapsed) if elapsed.isdigit() else None
            job = JobState(
                id=shown,
                state=state.split()[0],  # CANCELLED by 1000
                node="" if node.startswith("None") else node,
                reason="",  # what it last waited for, whatever it ended with
                restarts=0,
                elapsed_s=elapsed_s,
                left_s=None,
                exit=code,
            )
            for id in _members(shown):
                attempts[id].append((submitted, replace(job, id=id)))
    for rows in attempts.values():
        yield replace(max(rows, key=lambda row: row[0])[1], restarts=len(rows) - 1)


def _not_alive(job: JobState) -> JobState:
    """Of a job that slurmctld does not have, whatever accounting still believes."""
    if not job.alive:
        return job
    return replace(job, state=LOST, reason=f"slurmctld no longer has it; accounting says {job.state}")


def _chosen(wanted: set[str], jobs: Iterable[JobState]) -> dict[str, JobState]:
    """Those asked for; for an array as a whole, its first member that lives, or else its last."""
    found: dict[str, JobState] = {}
    for job in jobs:
        for id in wanted & {job.id, _array(job.id)}:
            if id not in found or not found[id].alive:
                found[id] = replace(job, id=id)
    return found


def _members(shown: str) -> list[str]:
    """The jobs of a row: of ``123_[0-3,7%2]``, which has not begun, every member."""
    match = _RANGE_SHOWN.fullmatch(shown)
    if not match:
        return [shown]
    ids: list[str] = []
    for part in match[2].split(","):
        bounds, _, step = part.partition(":")
        first, _, last = bounds.partition("-")
        ids += [f"{match[1]}_{i}" for i in range(int(first), int(last or first) + 1, int(step or 1))]
    return ids


def _array(id: str) -> str:
    return id.partition("_")[0]


def _told(text: str) -> str:
    return "" if text in ("None", "(null)", "N/A") else text


def _exit(code: str) -> str:
    """squeue's exit code, a wait status, as sacct writes it."""
    status = int(code) if code.isdigit() else 0
    return f"{status >> 8}:{status & 127}"


def _seconds(text: str) -> float | None:
    """``[days-][[hours:]minutes:]seconds``; None for UNLIMITED, NOT_SET and INVALID."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(?:(\d+):)?(\d+):)?(\d+)", text)
    if not match:
        return None
    days, hours, minutes, seconds = (int(part or 0) for part in match.groups())
    return float(((days * 24 + hours) * 60 + minutes) * 60 + seconds)


def _portions(ids: Collection[str]) -> Iterator[list[str]]:
    ordered = sorted(ids)
    for start in range(0, len(ordered), _AT_ONCE):
        yield ordered[start : start + _AT_ONCE]


def _ask(*command: str) -> str:
    """What one of Slurm's commands prints; `WorkFailed` with its own words where it has no answer."""
    # A user's SQUEUE_STATES or SACCT_FORMAT would change what is asked.
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("SQUEUE_", "SACCT_"))}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_ANSWER_S, env=environment | {"LC_ALL": "C"}
        )
    except FileNotFoundError:
        raise WorkFailed(f"Slurm's {command[0]} is not on PATH here") from None
    except subprocess.TimeoutExpired:
        raise WorkFailed(f"{command[0]}: no answer from Slurm in {_ANSWER_S:.0f} s") from None
    if done.returncode != 0:
        raise WorkFailed(f"{command[0]}: {_first_lines(done.stderr) or f'exit code {done.returncode}'}")
    return done.stdout


def _first_lines(text: str, lines: int = 2) -> str:
    return "; ".join([line.strip() for line in text.splitlines() if line.strip()][:lines])
