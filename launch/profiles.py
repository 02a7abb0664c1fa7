"""A cluster as a YAML file: `slurm/profiles/NAME.yaml`, or the path of one anywhere.

Values that name folders, and those under `environment`, may hold ``$VARIABLES``: they are filled in on the
node, within the job.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from xr2ct.config import Section, validate
from xr2ct.config_files import read_yaml
from xr2ct.errors import UserError, nearest
from xr2ct.shipped import shipped

PROFILES = shipped("slurm/profiles")

OWN_KEYS = {
    "account": "account", "constraint": "constraint", "cpus-per-task": "cpus_per_task",
    "gpus-per-node": "gpus_per_node", "mem": "mem_gb", "nodes": "nodes", "ntasks-per-node": "tasks_per_node",
    "partition": "partition", "qos": "qos", "signal": "signal_lead_s", "time": "time_limit_min",
}  # fmt: skip
"""sbatch's options that a profile has a key of its own for."""
_OURS = (
    "array",
    "chdir",
    "error",
    "export",
    "job-name",
    "no-requeue",
    "open-mode",
    "output",
    "requeue",
    "wrap",
)
"""sbatch's options that the kit sets, and could not do its work with others."""


class Container(Section):
    """What srun's tasks run in; the host script and Slurm's commands stay outside."""

    runtime: Literal["none", "pyxis", "enroot", "apptainer", "wrapper"] = "none"
    """`wrapper` puts the command in `args` before each task's own."""
    image: str | None = None
    """A file, or what the runtime takes for one."""
    mounts: tuple[str, ...] = ()
    """HOST or HOST:CONTAINER. The folder of the runs, the code and the folder submitted from are mounted
    always, by their own names; stores that lie elsewhere have to be named here."""
    args: tuple[str, ...] = ()
    """Further arguments of the runtime."""

    @model_validator(mode="after")
    def _whole(self) -> Container:
        if self.runtime in ("pyxis", "enroot", "apptainer") and not self.image:
            raise ValueError(f"runtime {self.runtime} needs an image")
        if self.runtime in ("none", "wrapper") and (self.image or self.mounts):
            raise ValueError(
                f"runtime {self.runtime} takes neither image nor mounts; expected pyxis, enroot or apptainer"
            )
        if self.runtime == "wrapper" and not self.args:
            raise ValueError("runtime wrapper needs its command in args")
        if self.runtime == "none" and self.args:
            raise ValueError("args without a runtime; expected pyxis, enroot, apptainer or wrapper")
        if any("," in mount or mount.count(":") > 2 for mount in self.mounts):
            raise ValueError("mounts: expected HOST or HOST:CONTAINER, without commas")
        return self


class EvaluatorJobs(Section):
    """How checkpoints are scored while training goes on; what is unset is training's."""

    schedule: Literal["chain", "scrontab", "watch", "off"] = "chain"
    """`chain`: a short job that submits its successor; `scrontab`: Slurm runs it by the clock; `watch`: by
    `xr2ct evaluate --watch` on a login node; `off`: by hand."""
    every_min: int = Field(10, ge=1)
    """Between two rounds, minutes."""
    task_min: int = Field(15, ge=1)
    """Pairs of checkpoint and cohort are packed into tasks of at least so many minutes."""
    partition: str | None = None
    gpus_per_node: int | None = Field(None, ge=0)
    cpus_per_task: int | None = Field(None, ge=1)
    mem_gb: float | None = Field(None, gt=0)
    time_limit_min: int = Field(60, ge=2)
    """Of a scoring task."""


class Profile(Section):
    """Where and how jobs run."""

    executor: Literal["local", "slurm"]
    """submitit's executor: this machine, or Slurm."""
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    """Features that nodes must have, as sbatch takes them."""
    nodes: int = Field(1, ge=1)
    gpus_per_node: int = Field(0, ge=0)
    tasks_per_node: int = Field(1, ge=1)
    """Ranks: one a GPU where there are GPUs (and unset), or one a share of the cores."""
    cpus_per_task: int | None = Field(None, ge=1)
    mem_gb: float | None = Field(None, gt=0)
    """Memory of a node."""
    time_limit_min: int = Field(60, ge=1)
    """Of one attempt: a run that needs longer is requeued and goes on."""
    signal_lead_s: int = Field(120, ge=1)
    """Between the warning and the end of the time limit: longer than an outer step and a checkpoint."""
    hung_s: int = Field(1800, ge=0)
    """A rank without progress for so long counts as hung: its stacks are dumped, the job requeued. 0: off."""
    array_parallel: int | None = Field(None, ge=1)
    """Members of an array that run at once; all (locally: one) where unset."""
    container: Container = Container()
    modules: tuple[str, ...] = ()
    """Loaded on the host, before the tasks."""
    environment: dict[str, str] = Field(default_factory=dict)
    """Variables of the tasks."""
    setup: tuple[str, ...] = ()
    """Lines of shell on the host, before the tasks."""
    python: str | None = None
    """The tasks' interpreter; the one that submits where unset, `python3` in a container."""
    scratch: str | None = None
    """Folder that takes every cache, seen by all nodes or on each; the home folder's where unset."""
    local_disk: str | None = None
    """Node-local folder that stores are staged to; read where they are where unset."""
    submit_from: Literal["anywhere", "login"] = "anywhere"
    """`login`: jobs may not submit jobs."""
    evaluator: EvaluatorJobs = EvaluatorJobs()
    sbatch: dict[str, str | int] = Field(default_factory=dict)
    """Any further options of sbatch, by their long names."""
    gpu_memory_gb: float | None = Field(None, gt=0)
    """Of one card: a configuration that needs more is refused before it waits in the queue."""
    device: str | None = None
    """What a card is, as `xr2ct summary --device` takes it: for the estimate of hours and memory."""
    sustained_tflops: float | None = Field(None, gt=0)
    """What a rank achieves in training, where that is known better than from its data sheet."""

    @model_validator(mode="before")
    @classmethod
    def _by_executor(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        told = dict(values)
        gpus = told.get("gpus_per_node")
        if isinstance(gpus, int) and gpus > 0:
            told.setdefault("tasks_per_node", gpus)
        if told.get("executor") == "local" and isinstance(told.get("evaluator", {}), dict):
            told["evaluator"] = {"schedule": "off", **told.get("evaluator", {})}
        return told

    @model_validator(mode="after")
    def _agrees(self) -> Profile:
        if self.signal_lead_s >= self.time_limit_min * 60:
            raise ValueError(
                f"signal_lead_s ({self.signal_lead_s} s) must be below time_limit_min "
                f"({self.time_limit_min} min): the warning would come before the start"
            )
        if self.gpus_per_node and self.tasks_per_node > self.gpus_per_node:
            raise ValueError(
                f"tasks_per_node ({self.tasks_per_node}) above gpus_per_node ({self.gpus_per_node}): "
                "a rank needs a card of its own"
            )
        if self.submit_from == "login" and self.evaluator.schedule == "chain":
            raise ValueError(
                "evaluator.schedule chain submits from within jobs, which submit_from: login forbids"
            )
        if self.executor == "local":
            self._local()
        for option in self.sbatch:
            self._refuse_option(option.removeprefix("--").replace("_", "-"))
        for name in self.environment:
            if not re.fullmatch(r"[A-Za-z_]\w*", name):
                raise ValueError(f"environment: {name!r} is no variable's name")
        return self

    def _local(self) -> None:
        slurms = {
            "nodes": self.nodes > 1, "partition": self.partition, "account": self.account, "qos": self.qos,
            "constraint": self.constraint, "sbatch": self.sbatch,
            "evaluator.schedule": self.evaluator.schedule not in ("off", "watch"),
        }  # fmt: skip
        if wrong := [key for key, stated in slurms.items() if stated]:
            raise ValueError(f"{', '.join(wrong)}: of no use with executor: local; expected executor: slurm")

    def _refuse_option(self, option: str) -> None:
        if option in OWN_KEYS:
            raise ValueError(f"sbatch: {option} has a key of its own, {OWN_KEYS[option]}")
        if option in _OURS:
            raise ValueError(f"sbatch: {option} is set by the kit")

    @property
    def ranks(self) -> int:
        """World size of a job."""
        return self.nodes * self.tasks_per_node


def profile_path(name: str) -> Path:
    """The file of the profile of that name or path; `UserError` naming the nearest one."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else PROFILES / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in PROFILES.glob("*.yaml"))
        raise UserError(f"--cluster {name}: no such profile; {nearest(name, known)}")
    return path


def load_profile(name: str) -> Profile:
    """The profile of that name or path; `UserError` naming the nearest one, or the wrong key."""
    path = profile_path(name)
    return validate(Profile, read_yaml(path), str(path))
