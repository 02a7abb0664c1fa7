"""From calls to one Slurm array, or to processes of this machine, by submitit and the host script.

A batch text's paths are relative to the submission's folder (`launch.layout`), in which the jobs start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import submitit

from launch.layout import Call, Request, host_command, lay_out, lead_s, setup_lines, unnested
from launch.local import local_text, submit_locally
from launch.profiles import OWN_KEYS, Profile
from launch.slurm import max_array_size
from xr2ct.errors import UserError, WorkFailed

__all__ = ["Call", "Request", "sbatch_text", "submit_array"]


def submit_array(profile: Profile, request: Request, calls: Sequence[Call], folder: Path) -> list[str]:
    """Submit `calls` as one array and return its members' ids, ``123_0``, …, in the order of `calls`.

    `folder` is made for it, and removed again where nothing was submitted. Raises `UserError` with Slurm's
    own words and the profile's key for what Slurm refuses, `WorkFailed` where Slurm does not answer.
    """
    _check_size(len(calls), profile)
    if profile.submit_from == "login" and "SLURM_JOB_ID" in os.environ:
        raise UserError("jobs may not submit jobs here (profile key submit_from: login)")
    if profile.executor == "local":
        return submit_locally(profile, request, calls, folder)
    lay_out(folder, calls, request)
    try:
        return ArrayExecutor(folder, profile, request).submit_laid_out(calls)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def sbatch_text(profile: Profile, request: Request, calls: Sequence[Call], folder: Path) -> str:
    """The exact text that `submit_array` gives to sbatch, or locally to bash; writes nothing."""
    if profile.executor == "local":
        return local_text(profile, request, calls, folder)
    return ArrayExecutor(folder, profile, request).text(calls)


class ArrayExecutor(submitit.SlurmExecutor):
    """submitit's, but always an array, and with the host script instead of a bare srun.

    submitit's own way turns a single call into a plain job, makes arrays by a plain SlurmExecutor, and
    requeues from within a task, which in a container has no Slurm commands.
    """

    def __init__(self, folder: Path, profile: Profile, request: Request) -> None:
        if shutil.which("sbatch") is None:
            raise UserError("sbatch is not on PATH here: submit from a machine that has Slurm's commands")
        super().__init__(folder)
        self.profile, self.request = profile, request
        self.update_parameters(**_parameters(profile, request))

    def submit_laid_out(self, calls: Sequence[Call]) -> list[str]:
        """Submit what `lay_out` has put into the folder; the members' ids."""
        script = self.folder / "submission.sh"
        script.write_text(self.text(calls), encoding="utf-8")
        array = self._get_job_id_from_submission_command(_sbatch(self.profile, script))
        return [f"{array}_{index}" for index in range(len(calls))]

    def text(self, calls: Sequence[Call]) -> str:
        """The batch script of an array."""
        self.parameters["map_count"] = len(calls)
        command = host_command(self.profile, self.request, calls, self.folder)
        return self._make_submission_file_text(command, "")


def _parameters(profile: Profile, request: Request) -> dict[str, Any]:
    """submitit's parameters, by sbatch's names with underscores."""
    requeue = {"requeue": True} if request.requeue else {"no-requeue": True}
    further = {key.removeprefix("--").replace("_", "-"): str(value) for key, value in profile.sbatch.items()}
    own = {
        "job_name": request.name,
        "nodes": request.nodes,
        "ntasks_per_node": request.tasks_per_node,
        "cpus_per_task": request.cpus_per_task,
        "gpus_per_node": request.gpus_per_node or None,
        "mem": None if request.mem_gb is None else f"{round(request.mem_gb * 1024)}M",
        "time": request.minutes,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "dependency": request.dependency,
    }
    over = {key.removeprefix("--").replace("_", "-"): value for key, value in request.overrides.items()}
    return {
        **{
            key: value
            for key, value in own.items()
            if value is not None and key.replace("_", "-") not in over
        },
        "array_parallelism": request.parallel or 2**30,
        "stderr_to_stdout": True,
        "wckey": None,
        "use_srun": False,
        "setup": setup_lines(profile, request),
        "additional_parameters": {
            **further,
            **({"begin": request.begin} if request.begin else {}),
            **requeue,
            "output": _OUTPUT,
            # To the batch shell alone, which is the host script: it tells every rank.
            "signal": f"B:USR1@{lead_s(profile, request)}",
            **over,
        },
    }


def _check_size(members: int, profile: Profile) -> None:
    if members < 1:
        raise UserError("nothing to submit")
    if profile.executor == "slurm" and members > (most := max_array_size()):
        raise UserError(f"{members} members are more than this Slurm takes in one array: MaxArraySize {most}")


_OUTPUT = "members/%a/log/host-%A_%a.out"


def _output(folder: Path) -> list[str]:
    """Slurm 22.05 fills in patterns in the folder of a batch job too: there its percent signs are doubled."""
    if "\\" in str(folder):
        raise UserError(f"{folder}: Slurm writes no logs below a folder with a backslash in its name")
    return [f"--output={str(folder.absolute()).replace('%', '%%')}/{_OUTPUT}"] if "%" in str(folder) else []


_REFUSED = (
    ("account", "account"),
    ("partition", "partition"),
    ("qos", "qos"),
    ("feature", "constraint"),
    ("time limit", "time_limit_min"),
    ("gres", "gpus_per_node"),
    ("memory", "mem_gb"),
    ("node count", "nodes"),
    ("cpu count", "cpus_per_task"),
    ("node configuration", "nodes, tasks_per_node, cpus_per_task, gpus_per_node, mem_gb or constraint"),
    ("unrecognized option", "sbatch"),
    ("invalid option", "sbatch"),
)
"""Words in what sbatch says, and the profile's key that they are about."""
_AWAY = ("unable to contact", "socket timed out", "connection refused", "zero bytes", "communication")


def _sbatch(profile: Profile, script: Path) -> str:
    """Submit a batch script from its own folder; what sbatch prints."""
    try:
        done = subprocess.run(
            ["sbatch", *_output(script.parent), script.name],
            cwd=script.parent, env=unnested() | {"LC_ALL": "C"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
    except OSError as error:
        raise WorkFailed(f"sbatch: {error.strerror}") from None
    if done.returncode == 0:
        return done.stdout
    lines = [line.removeprefix("sbatch: error: ") for line in done.stderr.splitlines() if line.strip()]
    told = "; ".join(lines[-2:]) or f"exit code {done.returncode}"
    if any(words in told.lower() for words in _AWAY):
        raise WorkFailed(f"sbatch: {told}")
    key = next((key for words, key in _REFUSED if words in told.lower()), None)
    stated = getattr(profile, key) if key in OWN_KEYS.values() and key else None
    about = f" (profile key {key}{'' if stated is None else f': {stated}'})" if key else ""
    raise UserError(f"Slurm refuses the job: {told}{about}")
