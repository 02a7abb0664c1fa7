"""From a configuration to a job: every member of a sweep validated first, then one array for all of them.

RUN_ROOT/.submissions/NAME-UTC/     what the array was submitted with (`launch.layout`)
RUN/code/                           the program as submitted (`launch.freeze`)
RUN/slurm/job.json                  the last submission of a run (`launch.submitted`)
"""

from __future__ import annotations

import json
import shutil
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from launch import slurm
from launch.cost import Cost, costs
from launch.executor import Call, Request, sbatch_text, submit_array
from launch.freeze import code_folder, freeze
from launch.job import train_task
from launch.logs import last_words, read_log
from launch.profiles import Profile, load_profile, profile_path
from launch.submitted import Submitted, is_finished, job_file, living, read_submission
from xr2ct.config import Experiment, load_members, run_path
from xr2ct.errors import UserError, WorkFailed
from xr2ct.loading.order import check_batch
from xr2ct.run import Run, write_atomically
from xr2ct.training import stage_before, start


@dataclass(frozen=True)
class Member:
    """One run that is to be trained."""

    run: Run
    experiment: Experiment
    overrides: tuple[str, ...]
    config: Path
    takes_over: str | None = None
    """A job that Slurm has given up and whose processes may still hold the run."""


@dataclass(frozen=True)
class Plan:
    """What would be submitted."""

    profile: Profile
    cluster: str
    members: tuple[Member, ...]
    finished: tuple[Path, ...]
    """Runs that are trained to their last step, and are left alone."""

    @property
    def run_root(self) -> Path:
        return self.members[0].experiment.run_root

    @property
    def request(self) -> Request:
        profile = self.profile
        return Request(
            name=self.members[0].experiment.name,
            nodes=profile.nodes,
            tasks_per_node=profile.tasks_per_node,
            gpus_per_node=profile.gpus_per_node,
            cpus_per_task=profile.cpus_per_task,
            mem_gb=profile.mem_gb,
            minutes=profile.time_limit_min,
            parallel=profile.array_parallel,
        )

    def calls(self) -> list[Call]:
        """One a member; its code is frozen in its run."""
        return [
            Call(
                function=train_task,
                arguments=(member.experiment, member.overrides),
                folder=member.run.path / "slurm",
                code=code_folder(member.run.path),
                environment={} if member.takes_over is None else {"XR2CT_TAKES_OVER": member.takes_over},
            )
            for member in self.members
        ]

    def text(self) -> str:
        """What sbatch, or locally bash, would be given."""
        return sbatch_text(self.profile, self.request, self.calls(), self._folder())

    def cost(self) -> list[Cost]:
        return costs([(member.experiment, member.run) for member in self.members], self.profile)

    def _folder(self) -> Path:
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        name = self.members[0].experiment.name
        names = (f"{name}-{stamp}" + (f"-{i}" if i else "") for i in range(1000))
        folders = (self.run_root.absolute() / ".submissions" / name for name in names)
        return next(folder for folder in folders if not folder.exists())


def plan(config: Path, overrides: Sequence[str], cluster: str) -> Plan:
    """Every member of a configuration, validated for a cluster. Writes nothing.

    Raises `UserError` here, not in the job: for a wrong key, data that is not there, a batch that the ranks
    cannot share, a run started with other values or being trained now.
    """
    members, finished = [], []
    profile = load_profile(cluster)
    for experiment, told in load_members(config, overrides):
        run = Run(run_path(experiment, told))
        validate(experiment, run, profile)
        if is_finished(run):
            finished.append(run.path)
        else:
            members.append(Member(run, placed(experiment, Path.cwd()), tuple(told), config.absolute()))
    refuse_live([member.run for member in members])
    return Plan(profile, _named(cluster), tuple(members), tuple(finished))


def placed(experiment: Experiment, workdir: Path) -> Experiment:
    """With its folders made whole, so that the run can be submitted again from anywhere."""
    data = experiment.data.model_copy(update={"stores": workdir / experiment.data.stores})
    coarse = experiment.coarse
    if coarse is not None:
        coarse = coarse.model_copy(update={"run": workdir / coarse.run})
    return experiment.model_copy(
        update={"run_root": workdir / experiment.run_root, "data": data, "coarse": coarse}
    )


def validate(experiment: Experiment, run: Run, profile: Profile) -> None:
    """What training would refuse once it had waited in the queue; `UserError`."""
    completed = start.completed(experiment)
    store, _ = start.open_training_data(completed)
    stage_before.find(run, completed, store)
    start.refuse_other_values(run, completed)
    check_batch(experiment.training.batch, profile.ranks, experiment.training.accumulation)
    if profile.gpus_per_node and experiment.training.device == "cpu":
        raise UserError(
            f"{run.path}: training.device: cpu, and the profile asks for GPUs (gpus_per_node: "
            f"{profile.gpus_per_node}); expected auto or cuda"
        )


def refuse_live(runs: Sequence[Run]) -> None:
    """`UserError` where a job that trains one of them waits or runs already."""
    submitted = {run.path: told for run in runs if (told := read_submission(run)) is not None}
    if busy := sorted(living(submitted.values())):
        job = submitted[busy[0]].job
        more = f" (and {len(busy) - 1} more runs)" if len(busy) > 1 else ""
        raise UserError(f"{busy[0]}: job {job} trains it already{more}; `xr2ct cancel` ends that")


def submit(plan: Plan, refresh_code: bool = False) -> list[Submitted]:
    """Freeze the code, submit the members as one array, note each run's job. Returns at once.

    A submission that fails leaves nothing behind. Raises `UserError` with Slurm's words where it refuses.
    """
    _refuse_beyond_limits(plan)
    with ExitStack() as undo:
        for member in plan.members:
            undo.callback(_take_back, member.run, _state(member.run))
            freeze(member.run.path, refresh_code)
        folder = plan._folder()
        ids = submit_array(plan.profile, plan.request, plan.calls(), folder)
        if plan.profile.executor == "slurm":
            undo.callback(slurm.cancel, ids)
        submitted = [_note(plan, member, id, folder) for member, id in zip(plan.members, ids, strict=True)]
        undo.pop_all()
    return submitted


def resubmit(
    runs: Sequence[Path],
    profile: Profile,
    cluster: str,
    takes_over: Mapping[Path, str],
    refresh_code: bool = False,
) -> list[Submitted]:
    """Train runs on from what they have, as one array, with the code they have.

    `cluster` is what job.json calls the profile; `takes_over`, by run, the job that Slurm says is gone.
    Raises `UserError` for a run that was never submitted or whose job lives.
    """
    members = []
    for path in runs:
        run = Run(path)
        told = read_submission(run)
        if told is None:
            raise UserError(f"{path}: no job was submitted for it; `xr2ct submit` does")
        experiment = _member_of(told)
        validate(experiment, run, profile)
        members.append(Member(run, experiment, told.overrides, told.config, takes_over.get(path)))
    refuse_live([member.run for member in members])
    return submit(Plan(profile, _named(cluster), tuple(members), ()), refresh_code)


def follow(submitted: Submitted) -> Iterator[str]:
    """Rank 0's log as it comes, until the job has ended; `WorkFailed` with its last words if it failed."""
    run = Run(submitted.run)
    yield from read_log(run, 0, lines=1_000_000, follow=True)
    if not is_finished(run):
        told = last_words(run, submitted.job) or "its log says nothing"
        raise WorkFailed(f"{run.path}: job {submitted.job} ended before the last step: {told}")


def _refuse_beyond_limits(plan: Plan) -> None:
    """With the numbers, which sbatch keeps to itself."""
    profile = plan.profile
    if profile.executor != "slurm":
        return
    longest = slurm.longest_min(profile.partition)
    if longest is not None and profile.time_limit_min > longest:
        raise UserError(
            f"time_limit_min: {profile.time_limit_min} is more than partition "
            f"{profile.partition or '(the default one)'} gives, {longest:.0f} min"
        )
    room = slurm.submission_room(profile.account, profile.qos)
    if len(plan.members) > room:
        raise UserError(
            f"{len(plan.members)} runs: more jobs than this user may submit now, which are {room} "
            "(MaxSubmitJobs and the like); submit fewer, or when others have ended"
        )


def _note(plan: Plan, member: Member, id: str, folder: Path) -> Submitted:
    told = {
        "cluster": plan.cluster,
        "executor": plan.profile.executor,
        "job": id,
        "array": id.partition("_")[0],
        "host": socket.gethostname(),
        "submission": str(folder),
        "submitted": datetime.now(UTC).isoformat(timespec="seconds"),
        "config": str(member.config),
        "overrides": list(member.overrides),
        "profile": plan.profile.model_dump(mode="json"),
    }
    write_atomically(job_file(member.run), json.dumps(told, indent=2) + "\n")
    noted = read_submission(member.run)
    assert noted is not None
    return noted


def _member_of(told: Submitted) -> Experiment:
    """As it was submitted, from the configuration that then was if the run has begun."""
    config = told.run / "config.yaml"
    if config.is_file():
        return Run(told.run).experiment().model_copy(update={"resolved": None})
    ((experiment, _),) = load_members(told.config, told.overrides)
    return placed(experiment, (told.submission / "workdir").resolve())


def _named(cluster: str) -> str:
    """A profile's name as it is, a path made whole: another command may be given elsewhere."""
    return str(profile_path(cluster).absolute()) if cluster.endswith((".yaml", ".yml")) else cluster


def _state(run: Run) -> set[str]:
    """What there is of a run that a submission may add to."""
    return {name for name in (".", "code", "slurm") if (run.path / name).exists()}


def _take_back(run: Run, before: set[str]) -> None:
    for name in ("code", "slurm", "."):
        if name not in before:
            shutil.rmtree(run.path / name if name != "." else run.path, ignore_errors=True)
