"""What a job is before it is Slurm's or this machine's: calls, a request, and the folder that carries both.

A submission's folder is where its jobs start, so that every path in the batch text is relative to it and no
space, quote, percent sign or line break in a user's folder reaches Slurm's parser:

    submission.sh               the exact text that sbatch was given
    job.sh                      the host script as submitted
    workdir -> …                where the submission was made: relative paths in a configuration count from it
    members/T/call.pkl          what member T runs
    members/T/log -> …          where its logs go
    members/T/code -> …         what its tasks import xr2ct and launch from
    members/T/environment.sh    variables of this member alone
    A_T_submitted.pkl, …        submitit's own, linked by the host script
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission

import launch
from launch.job import in_task
from launch.profiles import Container, Profile
from xr2ct.shipped import shipped


@dataclass(frozen=True)
class Call:
    """What one member of an array runs, in each of its tasks."""

    function: Callable[..., Any]
    """Of a module of `launch`: pickled by its name, so that the frozen code decides what it does."""
    arguments: tuple[Any, ...]
    folder: Path
    """Its ranks' logs, rendezvous and heartbeats; of a run, RUN/slurm."""
    code: Path | None = None
    """Folder that xr2ct and launch are imported from; None: where they are imported from here."""
    environment: Mapping[str, str] = field(default_factory=dict)
    """Variables of this member alone."""


@dataclass(frozen=True)
class Request:
    """What an array asks of the cluster, the same for all its members."""

    name: str
    nodes: int
    tasks_per_node: int
    gpus_per_node: int
    cpus_per_task: int | None
    mem_gb: float | None
    minutes: int
    parallel: int | None = None
    """Members that run at once; all where unset."""
    dependency: str | None = None
    begin: str | None = None
    requeue: bool = True
    """Whether the host script brings a member back that was stopped, killed or hung."""
    container: bool = True
    """Whether the tasks run in the profile's container."""
    overrides: Mapping[str, str] = field(default_factory=dict)
    """Options of sbatch that win over the profile's."""


def lay_out(folder: Path, calls: Sequence[Call], request: Request) -> None:
    """A submission's folder, with all that its jobs need but their ids.

    The calls too: a member may start before sbatch has returned, and the host script gives submitit's names.
    """
    folder.mkdir(parents=True)
    shutil.copyfile(shipped("slurm/job.sh"), folder / "job.sh")
    (folder / "workdir").symlink_to(Path.cwd())
    for index, call in enumerate(calls):
        member = folder / "members" / str(index)
        member.mkdir(parents=True)
        call.folder.mkdir(parents=True, exist_ok=True)
        (member / "log").symlink_to(call.folder.absolute())
        (member / "code").symlink_to((call.code or _installed()).absolute())
        lines = [f"export {name}={shlex.quote(value)}\n" for name, value in sorted(call.environment.items())]
        (member / "environment.sh").write_text("".join(lines), encoding="utf-8")
        delayed = DelayedSubmission(in_task, call.function, *call.arguments)
        delayed.set_timeout(request.minutes, max_num_timeout=0)
        delayed.dump(member / "call.pkl")


def unnested() -> dict[str, str]:
    """This process's environment, less what a job around it says about itself.

    sbatch and srun read those variables as options. SLURM_CONF says where the cluster is.
    """
    if "SLURM_JOB_ID" not in os.environ:
        return dict(os.environ)
    around = ("SLURM_", "SLURMD_", "SRUN_", "SBATCH_", "SUBMITIT_", "XR2CT_JOB", "XR2CT_RES", "XR2CT_REND")
    return {k: v for k, v in os.environ.items() if k == "SLURM_CONF" or not k.startswith(around)}


def host_command(
    profile: Profile, request: Request, calls: Sequence[Call], folder: Path, local: bool = False
) -> str:
    """How the batch script hands over to the host script; signals go to the shell, which becomes it."""
    options = ["--requeue"] if request.requeue else []
    options += ["--local", str(request.tasks_per_node)] if local else []
    container = profile.container if request.container else Container()
    srun, wrapper = _container(container, profile, request, _seen_by_tasks(calls, folder))
    for option in srun:
        options += ["--srun", option]
    # The host script adds the way from a task to the submission's folder.
    command = [*wrapper, _python(profile, container), "-u", "-m", "submitit.core._submit"]
    return shlex.join(["exec", "bash", "job.sh", *options, "--", *command])


def setup_lines(profile: Profile, request: Request) -> list[str]:
    """What the batch script does before the host script: variables, modules and the profile's own lines."""
    values = {
        "XR2CT_LEAD_S": str(lead_s(profile, request)),
        "XR2CT_HUNG_S": str(profile.hung_s),
        "XR2CT_REQUIRE_GPU": "1" if request.gpus_per_node else "0",
    }
    if profile.local_disk:
        values["XR2CT_STAGE"] = profile.local_disk
    if cohorts := os.environ.get("XR2CT_COHORTS"):
        values["XR2CT_COHORTS"] = str(Path(cohorts).absolute()).replace("$", "\\$")
    if profile.scratch:
        values |= {name: f"{profile.scratch}/{folder}" for name, folder in CACHES.items()}
    exports = [f"export {name}={expandable(value)}" for name, value in (values | profile.environment).items()]
    # A variable that a profile counts on and a node lacks ends the job, with its name.
    lines = ["set -u", *exports, "set +u"]
    if profile.modules:
        lines.append("command -v module >/dev/null || . /etc/profile")
        refused = "{ echo 'the module of profile key modules cannot be loaded' >&2; exit 2; }"
        lines += [f"module load {shlex.quote(module)} || {refused}" for module in profile.modules]
    return [*lines, *profile.setup]


def lead_s(profile: Profile, request: Request) -> int:
    """Between the warning and the end of the time limit; of jobs shorter than the profile's, at most half."""
    if request.minutes == profile.time_limit_min:
        return profile.signal_lead_s
    return min(profile.signal_lead_s, request.minutes * 30)


CACHES = {
    "CUDA_CACHE_PATH": "cuda",
    "MPLCONFIGDIR": "matplotlib",
    "NUMBA_CACHE_DIR": "numba",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TORCH_EXTENSIONS_DIR": "torch-extensions",
    "TORCH_HOME": "torch",
    "TRITON_CACHE_DIR": "triton",
    "XDG_CACHE_HOME": "cache",
}
"""What libraries keep below the home folder otherwise, and its name below the profile's scratch. TMPDIR stays
the node's: sockets and shared memory do not belong on a network."""


def expandable(value: str) -> str:
    """`value` for a shell that fills in ``$VARIABLES`` and does nothing else with it."""
    quoted = re.sub(r'(?<!\\)(\\(?!\$)|["`]|\$(?![A-Za-z_{]))', r"\\\1", value)
    return f'"{quoted}"'


def _python(profile: Profile, container: Container) -> str:
    return profile.python or ("python3" if container.image else sys.executable)


def _container(
    container: Container, profile: Profile, request: Request, seen: Sequence[Path]
) -> tuple[list[str], list[str]]:
    """Options of srun, and the command before each task's own."""
    if not container.image:
        return [], list(container.args)
    pairs = [*(f"{path}:{path}" for path in seen), *container.mounts]
    pairs = [pair if ":" in pair else f"{pair}:{pair}" for pair in pairs]
    gpu = ["--nv"] if request.gpus_per_node else []
    # A runtime starts a task where its image says, which may be anywhere.
    begin = ["sh", "-c", 'cd "$XR2CT_START" && exec "$@"', "sh"]
    match container.runtime:
        case "pyxis":
            mounted = f"--container-mounts={','.join(pairs)}"
            return [f"--container-image={container.image}", mounted, *container.args], begin
        case "enroot":
            bound = [part for pair in pairs for part in ("--mount", pair)]
            told = [part for name in _told_to_tasks(profile) for part in ("--env", name)]
            return [], ["enroot", "start", *bound, *told, *container.args, container.image, *begin]
        case _:
            bound = [part for pair in pairs for part in ("--bind", pair)]
            return [], ["apptainer", "exec", *gpu, *bound, *container.args, container.image, *begin]


def _seen_by_tasks(calls: Sequence[Call], folder: Path) -> list[Path]:
    """What a container has to mount whatever the profile says: the runs, the code, the folder worked in."""
    seen = [folder.absolute().parent.parent, Path.cwd()]
    for call in calls:
        for path in (call.folder.absolute().parent, (call.code or _installed()).absolute()):
            if not any(path.is_relative_to(other) for other in seen):
                seen.append(path)
    return list(dict.fromkeys(seen))


def _told_to_tasks(profile: Profile) -> list[str]:
    """Variables that a runtime has to be told of which hands none on."""
    slurms = (
        "ARRAY_JOB_ID", "ARRAY_TASK_ID", "JOB_ID", "JOB_NODELIST", "JOB_NUM_NODES", "LOCALID", "NODEID",
        "NTASKS", "PROCID", "STEP_NUM_NODES", "STEP_NUM_TASKS",
    )  # fmt: skip
    ours = (
        "COHORTS", "HUNG_S", "JOB", "LEAD_S", "RENDEZVOUS", "REQUIRE_GPU", "RESTART", "SLURM", "STAGE",
        "START", "TAKES_OVER", "WORKDIR",
    )  # fmt: skip
    others = ("CUDA_VISIBLE_DEVICES", "PYTHONPATH", "PYTHONSAFEPATH", "SUBMITIT_EXECUTOR", *CACHES)
    named = [*(f"SLURM_{name}" for name in slurms), *(f"XR2CT_{name}" for name in ours), *others]
    return list(dict.fromkeys([*named, *profile.environment]))


def _installed() -> Path:
    """The folder that xr2ct and launch are imported from."""
    return Path(launch.__file__).resolve().parents[1]
