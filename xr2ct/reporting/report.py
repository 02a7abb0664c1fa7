"""Everything runs have to show, in a folder: tables, curves and one page to look at."""

from __future__ import annotations

import html
import logging
from collections.abc import Sequence
from pathlib import Path

from xr2ct.config import Experiment, dump
from xr2ct.errors import UserError
from xr2ct.evaluation.results import Result, read_results
from xr2ct.reporting import pictures, tables
from xr2ct.reporting.page import Part, facts, render
from xr2ct.reporting.patients import choose, patient_html, reconstruct_case
from xr2ct.reporting.table import Table
from xr2ct.run import Run, write_atomically
from xr2ct.store import Store
from xr2ct.weights import checkpoint_geometry, load_mapper

log = logging.getLogger(__name__)


def write_report(runs: Sequence[Run], out: Path) -> Path:
    """Write tables as .md, .csv and .tex and a self-contained page; returns the page's path.

    Raises `UserError` for a run that has no evaluated best checkpoint yet.
    """
    every = {run.path: read_results(run) for run in runs}
    best = {run.path: _of_best(run, every[run.path]) for run in runs}
    results = [result for of_run in best.values() for result in of_run]
    scalings = {run.experiment().data.scaling for run in runs}
    if len(scalings) > 1:
        raise UserError("these runs differ in data.scaling; their figures stand in no common table")
    scaling = scalings.pop()
    written = [
        tables.cohort_table(results),
        tables.paper_table2(results, scaling),
        tables.paper_table1(results, scaling),
        tables.modes_table(results),
        tables.checkpoint_table(result for of_run in every.values() for result in of_run),
    ]
    for table in written:
        for suffix, text in (("md", table.markdown()), ("csv", table.csv()), ("tex", table.latex())):
            write_atomically(out / f"{table.name}.{suffix}", text)
    parts = [
        Part("cohorts", "Cohorts", _verdict(results) + written[0].html()),
        *[_curves_part(run, every[run.path], len(runs) > 1) for run in runs],
        *[_patients_part(run, best[run.path], len(runs) > 1) for run in runs],
        Part("tables", "The paper's tables", _with_titles(written[1:3])),
        Part("modes", "Metric modes and checkpoints", _with_titles(written[3:])),
        Part("provenance", "Provenance", "".join(_provenance(run) for run in runs)),
    ]
    page = out / "index.html"
    write_atomically(page, render(", ".join(run.path.name for run in runs), _lead(runs), parts))
    return page


def _of_best(run: Run, results: Sequence[Result]) -> list[Result]:
    """Those of the chosen checkpoint and of every method without one."""
    step = run.best_step()
    if step is None:
        raise UserError(f"{run.path}: no best checkpoint yet; run `xr2ct evaluate {run.path}` first")
    return [r for r in results if r.step in (step, None)]


def _lead(runs: Sequence[Run]) -> str:
    told = []
    for run in runs:
        experiment = run.experiment()
        data = experiment.data
        views = ", ".join(f"{angle:g}°" for angle in data.views)
        told.append(
            f"{run.path.name}: {experiment.method['name']} with {experiment.mapper['name']} at {data.size}³ "
            f"from views at {views}; step {run.best_step()} of {experiment.training.steps}, "
            "chosen on validation."
        )
    return "".join(f'<p class="soft">{html.escape(line)}</p>' for line in told)


def _verdict(results: Sequence[Result]) -> str:
    """On which cohorts the mapper is above both priors, said before any table."""
    won: list[str] = []
    lost: list[str] = []
    for ours in (r for r in tables.ordered(results) if r.step is not None and r.split == "test"):
        same = [r for r in results if (r.run, r.cohort, r.split) == (ours.run, ours.cohort, ours.split)]
        priors = [r.mean("honest/psnr") for r in same if r.source.startswith("prior")]
        if priors:
            (won if ours.mean("honest/psnr") > max(priors) else lost).append(ours.cohort)
    told = []
    if won:
        told.append(f"By honest PSNR the mapper is above both priors on {', '.join(won)}.")
    if lost:
        told.append(f"It is not above both priors, mean chest and nearest patient, on {', '.join(lost)}.")
    return f'<p class="note">{html.escape(" ".join(told))}</p>' if told else ""


def _curves_part(run: Run, results: Sequence[Result], several: bool) -> Part:
    metrics = list(run.metrics())
    steps = [m["step"] for m in metrics]
    names = [key for key in (metrics[0] if metrics else {}) if key.startswith("loss/")]
    charts = [pictures.curves({name: (steps, [m[name] for m in metrics])}, name) for name in names]
    for column, label in (("honest/psnr", "honest PSNR, dB"), ("honest/ssim", "honest SSIM")):
        lines, priors = _by_checkpoint(results, column), _priors(results, column)
        charts.append(pictures.curves(lines, label, horizontal=priors, marker="o"))
    body = "".join(f"<div>{chart}</div>" for chart in charts)
    told = "<p class='soft'>Losses by outer step, and every checkpoint on every cohort.</p>"
    name = f" of {run.path.name}" if several else ""
    return Part(f"curves-{run.path.name}", f"Training{name}", f'{told}<div class="charts">{body}</div>')


def _by_checkpoint(results: Sequence[Result], column: str) -> dict[str, tuple[list[float], list[float]]]:
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for result in (r for r in tables.ordered(results) if r.step is not None):
        x, y = lines.setdefault(f"{result.cohort} {result.split}", ([], []))
        x.append(float(result.step or 0))
        y.append(result.mean(column))
    return lines


def _priors(results: Sequence[Result], column: str) -> dict[str, float]:
    """The levels of the priors on the validation split, by which the checkpoint is chosen."""
    return {
        f"val, {tables.SOURCES[r.source]}": r.mean(column)
        for r in results
        if r.split == "val" and r.source.startswith("prior")
    }


def _patients_part(run: Run, results: Sequence[Result], several: bool) -> Part:
    """The median test patient of every cohort, and of the training cohort the worst and the best too."""
    experiment = run.experiment()
    mapper, _ = load_mapper(run.best, experiment.evaluation.weights)
    assert experiment.resolved is not None
    geometry, cube_mm = checkpoint_geometry(experiment), experiment.resolved.cube_mm
    told = []
    for result in _shown(results):
        places = ("median", "worst", "best") if result.cohort == experiment.data.cohort else ("median",)
        scores = {row["case"]: row["honest/psnr"] for row in result.rows}
        store = Store.open(experiment.data.store(result.cohort))
        cases = {case.id: case for case in store.cases}
        for place, case in choose(scores, places).items():
            patient = reconstruct_case(store, cases[case], mapper, experiment.data, geometry, cube_mm)
            heading = f"{result.cohort} {result.split}, {place} patient: {case}, {scores[case]:.2f} dB"
            told.append(patient_html(patient, heading))
    name = f" of {run.path.name}" if several else ""
    return Part(f"patients-{run.path.name}", f"Patients{name}", "".join(told))


def _shown(results: Sequence[Result]) -> list[Result]:
    """The chosen checkpoint's results on test splits; on validation where a cohort has no test patient."""
    ours = [r for r in tables.ordered(results) if r.step is not None]
    tested = {r.cohort for r in ours if r.split == "test"}
    return [r for r in ours if r.split == "test" or r.cohort not in tested]


def _with_titles(written: Sequence[Table]) -> str:
    return "".join(f"<h3>{html.escape(table.title)}</h3>{table.html()}" for table in written)


def _provenance(run: Run) -> str:
    experiment: Experiment = run.experiment()
    resolved = experiment.resolved
    assert resolved is not None
    pairs = [
        ("Run", str(run.path)),
        ("Commit", resolved.commit or "not under version control"),
        ("Precision", resolved.precision),
        ("Ranks", str(resolved.world_size)),
        *[(f"Store {cohort}", checksum) for cohort, checksum in resolved.stores.items()],
        ("Versions", ", ".join(f"{k} {v}" for k, v in resolved.versions.items())),
    ]
    config = html.escape(dump(experiment))
    return f"{facts(pairs)}<details><summary>config.yaml</summary><pre>{config}</pre></details>"
