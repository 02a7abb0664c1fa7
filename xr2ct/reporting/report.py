"""Everything runs have to show, in a folder: tables, figures, their locks, and one page to look at."""

from __future__ import annotations

import html
import logging
import math
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

from xr2ct.config import dump
from xr2ct.errors import UserError, WorkFailed, first_line
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.reporting.curves import training_curves
from xr2ct.reporting.exhibit import Exhibit, Maker, maker
from xr2ct.reporting.lock import SUFFIX, Lock, LockedRun, lock_run, write_exhibit
from xr2ct.reporting.page import Part, facts, render
from xr2ct.reporting.patients import patients_html
from xr2ct.reporting.statistics import mean
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.run import Run, write_atomically

log = logging.getLogger(__name__)

DEFAULT = (
    "cohorts",
    "seeds",
    "comparisons",
    "paper-table2",
    "paper-table1",
    "modes",
    "detail",
    "checkpoints",
    "projections",
    "planes",
    "ways",
    "doubt-scores",
    "reliability",
    "doubt",
    "missing",
)
"""Exhibits of runs whose configurations name none."""


def write_report(
    runs: Sequence[Run], out: Path, *, absent: Sequence[str] = (), command: Sequence[str] | None = None
) -> Path:
    """Write the exhibits that the runs' configurations name, each with its lock, and a self-contained page.

    absent: what else was asked for and is not there, a line each. command: kept in the locks. An exhibit
    that cannot be made is named on the page and in the log. Returns the page's path. Raises `UserError` for
    a run that has no evaluated best checkpoint yet, for runs that stand in no common table, and for an
    exhibit that nobody knows.
    """
    study = Study.of(runs)
    asked = _asked(study, runs)
    wanted = {name: maker(name) for name in asked or DEFAULT}
    told = [*command] if command else ["xr2ct", "report", *(str(r.path) for r in runs), "--out", str(out)]
    locked = [lock_run(run, study.experiment(run)) for run in runs]
    parts: list[Part] = []
    without = list(absent)
    for name, make in wanted.items():
        exhibit = _make(name, make, study, asked, without)
        if exhibit is not None:
            files = _files_note(write_exhibit(exhibit, out, told, locked))
            parts.append(Part(exhibit.name, exhibit.title, exhibit.html() + files))
    parts += [
        Part("training", "Training", "".join(_training(study))),
        Part("patients", "Patients", _patients(study, without)),
        Part("provenance", "Provenance", "".join(map(_provenance, runs, locked))),
    ]
    page = out / "index.html"
    title = ", ".join(system.label for system in study.systems)
    write_atomically(page, render(title, _lead(study) + _verdict(study) + _absent(without), parts))
    return page


def _asked(study: Study, runs: Sequence[Run]) -> list[str]:
    """What the configurations name, each once, in their order."""
    return list(dict.fromkeys(name for run in runs for name in study.experiment(run).exhibits))


def _make(name: str, make: Maker, study: Study, asked: Collection[str], without: list[str]) -> Exhibit | None:
    """The exhibit; where there is none and it was asked for, or it failed, why is added to `without`."""
    try:
        if (exhibit := make(study)) is not None:
            return exhibit
        if name not in asked:
            return None
        why = "nothing to show in it"
    except (UserError, WorkFailed) as error:
        why = first_line(error)
    without.append(f"{name}: {why}")
    log.info("%s", without[-1])
    return None


def _files_note(lock: Lock) -> str:
    names = [*(f"{lock.name}.{suffix}" for suffix in lock.files), lock.name + SUFFIX]
    return f'<p class="soft">{html.escape(", ".join(names))}</p>'


def _lead(study: Study) -> str:
    return "".join(f'<p class="soft">{html.escape(_about(study, system))}</p>' for system in study.systems)


def _about(study: Study, system: System) -> str:
    experiment = system.experiment
    data = experiment.data
    views = ", ".join(f"{angle:g}°" for angle in data.views)
    steps = ", ".join(str(run.best_step()) for run in system.runs)
    seeds = f"; seeds {', '.join(map(str, system.seeds))}" if len(system.seeds) > 1 else ""
    return (
        f"{system.label}: {experiment.method['name']} with {experiment.mapper['name']} at {data.size}³ from "
        f"views at {views}{seeds}; step {steps} of {experiment.training.steps}, chosen on validation."
    )


def _verdict(study: Study) -> str:
    """On which cohorts each system is above both priors, said before any table."""
    lines = []
    for system in study.systems:
        won: list[str] = []
        lost: list[str] = []
        for cohort in study.tested:
            ours = mean(study.results(system, cohort, "test"), PRIMARY)
            priors = [mean(study.results(p, cohort, "test"), PRIMARY) for p in _priors(study, system)]
            if not math.isnan(ours) and (known := [value for value in priors if not math.isnan(value)]):
                (won if ours > max(known) else lost).append(cohort)
        if won:
            lines.append(f"By honest PSNR {system.label} is above both priors on {', '.join(won)}.")
        if lost:
            lines.append(
                f"{system.label} is not above both priors, mean chest and nearest patient, on "
                f"{', '.join(lost)}."
            )
    return f'<p class="note">{"<br>".join(map(html.escape, lines))}</p>' if lines else ""


def _priors(study: Study, system: System) -> list[System]:
    """The priors as scored beside a system."""
    paths = {run.path for run in system.runs}
    return [s for s in study.others if s.kind == "prior" and paths & {run.path for run in s.runs}]


def _absent(lines: Sequence[str]) -> str:
    if not lines:
        return ""
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<div class="note">Not in this report:<ul>{items}</ul></div>'


def _training(study: Study) -> Iterator[str]:
    """The curves of each system's first run: with many seeds the page stays one to look at."""
    for system in study.systems:
        run = system.runs[0]
        seed = f", seed {system.seeds[0]}" if len(system.seeds) > 1 else ""
        chart = training_curves(run, study.every(run))
        yield f"<h3>{html.escape(system.label + seed)}</h3>{chart.html()}"


def _patients(study: Study, without: list[str]) -> str:
    told: list[str] = []
    for system in study.systems:
        try:
            told += patients_html(study, system)
        except (UserError, WorkFailed) as error:
            without.append(f"patients of {system.label}: {first_line(error)}")
            log.info("%s", without[-1])
    return "".join(told)


def _provenance(run: Run, locked: LockedRun) -> str:
    experiment = run.experiment()
    resolved = experiment.resolved
    assert resolved is not None
    pairs = [
        ("Run", str(run.path)),
        ("Commit", resolved.commit or "not under version control"),
        ("Precision", resolved.precision),
        ("Ranks", str(resolved.world_size)),
        *[(f"{name}, SHA-256", digest) for name, digest in locked.checkpoint.items()],
        *[(f"Store {cohort}", checksum) for cohort, checksum in resolved.stores.items()],
        ("Versions", ", ".join(f"{k} {v}" for k, v in resolved.versions.items())),
    ]
    config = html.escape(dump(experiment))
    return f"{facts(pairs)}<details><summary>config.yaml</summary><pre>{config}</pre></details>"
