"""Equal time for each: how many outer steps a configuration takes in given minutes on this machine.

Systems differ in what an outer step is, so a comparison by steps favours whoever does more in one. The
seconds of a step are measured in a short trial, and the schedule is stretched or squeezed whole: warm-up,
decay and checkpoints keep their share of the steps.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from signal import Signals
from statistics import median

from xr2ct.config import Training
from xr2ct.errors import STOPPED, Stopped, UserError, WorkFailed
from xr2ct.run import Run, write_atomically
from xr2ct.study.child import last_line, run_child
from xr2ct.study.member import Member
from xr2ct.training.stopping import Listener

log = logging.getLogger(__name__)

TRIAL_STEPS = 6
TRIAL_S = 10.0
"""A trial ends once it has had so many steps, and these took so long; or at its schedule's end."""


@dataclass(frozen=True)
class Pace:
    """What a trial found out."""

    seconds: float
    """Of an outer step: the median of the trial's later half, since the first ones choose algorithms."""
    precision: str
    """That ``training.precision: auto`` came to, for all runs of this system to share."""


def paced(
    members: Sequence[Member], minutes: float, out: Path, listener: Listener, failed: dict[Path, str]
) -> list[Member]:
    """The members with schedules that take `minutes` each; one whose trial failed is added to `failed`.

    Members that differ in nothing but their seed share a trial, and so a schedule. What trials found is kept
    in OUT/paces.json: the same command chooses the same steps again, and its runs go on.
    """
    file = out / "paces.json"
    paces = _read(file)
    chosen: list[Member] = []
    for member in members:
        if member.system not in paces:
            log.info("%s: a trial of some steps", member)
            try:
                paces[member.system] = _trial(member, out, listener)
            except WorkFailed as failure:
                failed[member.run.path] = str(failure)
                continue
            write_atomically(file, json.dumps({key: asdict(pace) for key, pace in paces.items()}, indent=1))
        pace = paces[member.system]
        member = member.with_overrides(squeezed(member.experiment.training, pace, minutes))
        steps = member.experiment.training.steps
        log.info("%s: %.3g s a step: %d steps in %g minutes", member, pace.seconds, steps, minutes)
        chosen.append(member)
    return chosen


def squeezed(training: Training, pace: Pace, minutes: float) -> list[str]:
    """The overrides by which a schedule takes `minutes`, at least one step."""
    steps = max(1, round(60 * minutes / pace.seconds))
    share = steps / training.steps
    warmup = min(round(training.warmup_steps * share), steps - 1)
    values = {
        "steps": steps,
        "warmup_steps": warmup,
        "checkpoint_every": max(1, math.ceil(training.checkpoint_every * share)),
        "precision": pace.precision,
    }
    if training.decay_after is not None:
        values["decay_after"] = min(max(round(training.decay_after * share), warmup), steps)
    return [f"training.{key}={value}" for key, value in values.items()]


def _trial(member: Member, out: Path, listener: Listener) -> Pace:
    """Train for some steps in a run below `out`, which is gone afterwards; `WorkFailed` where that fails."""
    scratch, file = out / ".trial", out / "logs" / f"trial-{member.run.path.name}.log"
    shutil.rmtree(scratch, ignore_errors=True)
    trial = member.with_overrides([f"run_root={scratch}", "tracking.enabled=false"])
    try:
        arguments = ["train", str(trial.config), *trial.overrides]
        code = run_child(arguments, file, listener, _had_enough(trial.run))
        if listener.heard:
            raise Stopped(f"stopped as {Signals(listener.heard).name} asked; the same command goes on")
        seconds = [record["seconds"] for record in trial.run.metrics()]
        if code not in (0, STOPPED) or not seconds:
            raise WorkFailed(f"its trial ended with exit code {code}: {last_line(file)} (see {file})")
        resolved = trial.run.experiment().resolved
        assert resolved is not None
        return Pace(median(seconds[len(seconds) // 2 :]), resolved.precision)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _had_enough(run: Run) -> Callable[[], bool]:
    def enough() -> bool:
        seconds = [record["seconds"] for record in run.metrics()]
        return len(seconds) >= TRIAL_STEPS and sum(seconds) >= TRIAL_S

    return enough


def _read(file: Path) -> dict[str, Pace]:
    if not file.exists():
        return {}
    try:
        return {key: Pace(**pace) for key, pace in json.loads(file.read_text(encoding="utf-8")).items()}
    except (ValueError, TypeError, AttributeError):
        raise UserError(f"{file}: not what a study wrote; delete it to measure anew") from None
