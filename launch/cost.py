"""What a submission will take: cards, memory a rank, hours, disk. Each figure says what it is."""

from __future__ import annotations

import shutil
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from launch.profiles import Profile
from launch.units import format_bytes, format_seconds
from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.run import Run
from xr2ct.summary import DEFAULT_DEVICE, summarise

_RECENT = 50
"""Outer steps whose median is a run's speed."""


@dataclass(frozen=True)
class Cost:
    """Of one member, from what its run has done so far to its last step."""

    run: Path
    memory_bytes: int
    """Of a rank, about."""
    steps_left: int
    seconds: float | None
    """Of training, all attempts together; None where nothing tells the speed."""
    source: str
    """What tells the speed."""
    disk_bytes: int
    """Checkpoints yet to be written, less those whose state goes."""


def member_cost(experiment: Experiment, run: Run, profile: Profile, told: dict[str, Any]) -> Cost:
    """`told` is the summary on the profile's device; `UserError` for more memory than its cards have."""
    training = experiment.training
    row = next(row for row in told["memory"] if row["ranks"] == profile.ranks)
    memory = row["bytes_by_zero_stage"][training.zero_stage]
    if profile.gpu_memory_gb and profile.gpus_per_node and memory > profile.gpu_memory_gb * 1e9:
        raise UserError(
            f"{run.path}: about {format_bytes(memory)} a rank, and a card has {profile.gpu_memory_gb:g} GB "
            "(profile key gpu_memory_gb): more ranks, training.accumulation or a smaller training.batch"
        )
    records = list(run.metrics())
    done = max((record["step"] for record in records), default=0)
    left = max(0, training.steps - done)
    step_s, source = _step_seconds(records, profile, told, row)
    saved = set(run.steps())
    due = {*range(0, training.steps + 1, training.checkpoint_every), training.steps}
    weights, engines = told["checkpoint_bytes"]["weights"], told["checkpoint_bytes"]["engines"]
    # One more than is kept: the oldest goes when the newest is whole.
    full = training.keep_engines + 1 - min(len(saved), training.keep_engines)
    return Cost(
        run=run.path,
        memory_bytes=memory,
        steps_left=left,
        seconds=None if step_s is None else left * step_s,
        source=source,
        disk_bytes=len(due - saved) * weights + max(0, full) * engines,
    )


def costs(members: Sequence[tuple[Experiment, Run]], profile: Profile) -> list[Cost]:
    """Of every member. Networks alike but for what counts nothing are counted once."""
    counted: dict[str, dict[str, Any]] = {}
    found = []
    for experiment, run in members:
        alike = experiment.model_dump_json(include={"data", "lift", "mapper", "method", "training"})
        if alike not in counted:
            counted[alike] = summarise(experiment, profile.device or DEFAULT_DEVICE, profile.ranks)
        found.append(member_cost(experiment, run, profile, counted[alike]))
    return found


def format_cost(found: Sequence[Cost], profile: Profile, run_root: Path) -> str:
    """A few lines for the terminal."""
    at_once = min(len(found), profile.array_parallel or (1 if profile.executor == "local" else len(found)))
    cards = profile.nodes * profile.gpus_per_node
    unit = (
        f"{cards} GPU{'s' * (cards != 1)}"
        if cards
        else f"{profile.ranks} rank{'s' * (profile.ranks > 1)} on CPUs"
    )
    memory = max(cost.memory_bytes for cost in found)
    disk = sum(cost.disk_bytes for cost in found)
    free = shutil.disk_usage(next(p for p in (run_root, *run_root.absolute().parents) if p.is_dir())).free
    lines = [
        f"{len(found)} run{'s' * (len(found) != 1)}, {at_once} at once, {unit} each",
        f"memory a rank  about {format_bytes(memory)} (counted, without the allocator's own)",
        f"hours          {_hours(found, profile, cards)}",
        f"disk           {format_bytes(disk)} of checkpoints; {format_bytes(free)} free",
    ]
    if disk > free:
        lines.append(f"warning        {run_root} has not the room for all of it")
    return "\n".join(lines)


def _hours(found: Sequence[Cost], profile: Profile, cards: int) -> str:
    limit = f"at most {format_seconds(profile.time_limit_min * 60)} an attempt; what needs longer comes back"
    known = [cost.seconds for cost in found if cost.seconds is not None]
    if len(known) < len(found):
        return f"{limit}; profile key device would tell how long"
    how = "; ".join(dict.fromkeys(cost.source for cost in found))
    total = f", {sum(known) * cards / 3600:.1f} GPU-hours in all" if cards else ""
    return f"about {format_seconds(max(known))} the longest run ({how}){total}; {limit}"


def _step_seconds(
    records: Sequence[dict[str, Any]], profile: Profile, told: dict[str, Any], row: dict[str, Any]
) -> tuple[float | None, str]:
    """Of an outer step, and what tells it."""
    seconds = [record["seconds"] for record in records[-_RECENT:] if "seconds" in record]
    if seconds:
        return statistics.median(seconds), "from steps measured"
    if profile.sustained_tflops:
        rate = profile.ranks * profile.sustained_tflops * 1e12
        return told["step_flops"] / rate, "from operations and sustained_tflops"
    if profile.device:
        return row["step_seconds"], f"extrapolated for {profile.device}"
    return None, ""
