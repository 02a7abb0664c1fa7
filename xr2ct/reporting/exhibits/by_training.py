"""What training was given and how it was set: cases to learn from, and optimal transport's own keys."""

from __future__ import annotations

import logging
from dataclasses import replace

from xr2ct.errors import UserError
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.reporting.chart import Chart, Panel
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.lines import cohort_panels, elsewhere, full_facts, lines, places, series
from xr2ct.reporting.statistics import mean
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.store import Store

log = logging.getLogger(__name__)

_OT = {
    "method.blur": "blur, units of features",
    "method.blur_of_spread": "blur, spreads of features",
    "training.batch": "batch that OT sees",
    "method.potential_weight": "λ, weight of the potential",
    "method.mapper_updates": "k, mapper updates a step",
}
_GOES_WITH = {
    "training.batch": ("training.accumulation", "optimizer.lr_per_sample"),
    "method.mapper_updates": (
        "training.steps",
        "training.warmup_steps",
        "training.decay_after",
        "training.checkpoint_every",
    ),
}
"""Keys by which a study keeps the rate of learning and the number of updates the same."""


@exhibit("data-efficiency-curve")
def make_data_efficiency(study: Study) -> Chart | None:
    """Metrics against the number of training cases, with the seeds' spread."""
    found = lines(study.systems, _training_cases, ("data.train_cases",))
    if len(places(found)) < 2:
        return None
    columns = {"honest/psnr": "honest PSNR, dB", "honest/ssim": "honest SSIM"}
    return Chart(
        "data-efficiency-curve",
        "Number of training cases",
        "Bars: standard deviation of the training seeds' means, where there are several. Test splits, mode "
        "honest; fewer cases are the first of the same seeded order.",
        cohort_panels(study, found, "training cases", columns, "seeds"),
    )


@exhibit("ot-curve")
def make_ot(study: Study) -> Chart | None:
    """One key of optimal transport at a time, the others as they were; plain regression as a level."""
    systems = [s for s in study.systems if s.experiment.method["name"] == "neural-ot"]
    if not systems:
        return None
    cohort = systems[0].experiment.data.cohort
    other = elsewhere(study, cohort)
    plain = [s for s in study.systems if s.experiment.method["name"] == "regression"]
    levels = {s.label: mean(study.results(s, cohort, "test"), PRIMARY) for s in plain}
    panels = [_ot_panel(study, systems, cohort, other, *told) for told in _OT.items()]
    shown = [replace(panel, levels=levels) for panel in panels if panel]
    if not shown:
        return None
    lighter = f", lighter on {other}" if other else ""
    return Chart(
        "ot-curve",
        "Optimal transport's own settings",
        f"Honest PSNR on {cohort}{lighter}, test splits, one key at a time. Bars: 95 % interval over "
        f"patients.{' Levels: regression without a potential, on ' + cohort + '.' if levels else ''}",
        tuple(shown),
    )


def _ot_panel(
    study: Study, systems: list[System], cohort: str, other: str | None, key: str, name: str
) -> Panel | None:
    """None where no two systems differ in the key alone."""
    apart = (key, *_GOES_WITH.get(key, ()))
    found = lines(systems, lambda s: full_facts(s.experiment)[key], apart, lambda e: "neural OT", at_least=2)
    if not found:
        return None
    drawn = []
    for line in found:
        drawn.append(series(study, line, cohort, PRIMARY, "patients", tone=line.label))
        if other:
            style = {"label": f"{line.label}, {other}", "tone": line.label, "light": True}
            drawn.append(series(study, line, other, PRIMARY, "patients", **style))
    kept = tuple(s for s in drawn if s.x)
    return Panel(name, "honest PSNR, dB", kept, log_x=all(x > 0 for x in places(found)), ticks=places(found))


def _training_cases(system: System) -> float | None:
    """As stated, else those of its store's training split; None, with a line in the log, where it is gone."""
    data = system.experiment.data
    if data.train_cases is not None:
        return float(data.train_cases)
    try:
        store = Store.open(data.store(data.cohort))
    except UserError as error:
        log.warning("%s: left out of the curve over training cases: %s", system.label, error)
        return None
    return float(sum(case.split == "train" for case in store.cases))
