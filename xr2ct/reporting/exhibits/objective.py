"""Studies of what is learnt from and by which objective: training-set size, and optimal transport itself."""

from __future__ import annotations

import math

from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.lines import full_facts
from xr2ct.reporting.rows import (
    INTERVAL,
    PATIENTS,
    SEEDS,
    SPREAD,
    Scored,
    counts,
    fitted,
    interval,
    scored,
)
from xr2ct.reporting.statistics import difference, mean, summary
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.reporting.table import Cell, Column, Table

_SCORES = (
    SEEDS,
    PATIENTS,
    Column("psnr", "PSNR dB", ".2f"),
    Column("interval", "95 %", right=True),
    Column("spread", "SD of seeds", ".2f"),
    Column("ssim", "SSIM", ".3f"),
)
_OT = (
    Column("method.blur", "Blur", "g"),
    Column("method.blur_of_spread", "Blur of spread", "g"),
    Column("training.batch", "Batch", "d"),
    Column("method.potential_weight", "λ", "g"),
    Column("method.mapper_updates", "k", "d"),
)
"""By the configuration's keys."""


@exhibit("data-efficiency")
def data_efficiency(study: Study) -> Table | None:
    """By number of training cases; None where all systems have the same."""
    if len({_train_cases(system) for system in study.systems}) < 2:
        return None
    rows = []
    for one in scored(study, "test"):
        if one.system.kind == "truth":
            continue
        n = one.system.experiment.data.train_cases
        known = {"train_cases": "all" if n is None else n} if one.system.kind != "elsewhere" else {}
        rows.append(one.labels() | known | _scores(one) | _to_the_largest(study, one))
    columns = (
        Column("cohort", "Cohort"),
        Column("system", "System"),
        Column("train_cases", "Training cases", "d"),
        *_SCORES,
        Column("difference", "Δ to the most, dB", "+.2f"),
        Column("difference_interval", "95 % of Δ", right=True),
    )
    caption = (
        f"Honest PSNR and SSIM on test splits. {INTERVAL} {SPREAD} Δ: to the same system with the most "
        "training cases, paired by case. Training cases are the first of an order drawn with the seed, so a "
        "larger set holds each smaller one."
    )
    return Table("data-efficiency", "Training-set size", caption, fitted(columns, rows), rows)


@exhibit("ot")
def ot(study: Study) -> Table | None:
    """By the transport's own settings, beside what needs none; None where all systems have the same."""
    settings = {system.label: _settings(system) for system in study.systems}
    if len({tuple(told.values()) for told in settings.values() if told}) < 2:
        return None
    rows = [
        one.labels() | _objective(one.system) | settings.get(one.system.label, {}) | _scores(one)
        for one in scored(study, "test")
        if one.system.kind != "truth"
    ]
    columns = (
        Column("cohort", "Cohort"),
        Column("system", "System"),
        Column("objective", "Objective"),
        *_OT,
        *_SCORES,
    )
    caption = (
        "Honest PSNR and SSIM on test splits by the settings of optimal transport: its blur in units of "
        "features, or as a multiple of their spread; the global batch that it sees; λ, the potential's "
        f"weight in the mapper's loss; k, the mapper's updates for each of the potential. {INTERVAL} {SPREAD}"
    )
    return Table("ot", "Optimal transport", caption, fitted(columns, rows), rows)


def _scores(one: Scored) -> dict[str, Cell]:
    told = summary(one.results, PRIMARY)
    return counts(told) | {
        "psnr": told.mean,
        "interval": interval(told.low, told.high),
        "spread": told.spread,
        "ssim": mean(one.results, "honest/ssim"),
    }


def _train_cases(system: System) -> float:
    return system.experiment.data.train_cases or math.inf


def _to_the_largest(study: Study, one: Scored) -> dict[str, Cell]:
    """Of a trained system, against that which differs from it in the number of training cases alone."""
    if one.system.kind != "ours":
        return {}
    same = [s for s in study.systems if _without_size(s) == _without_size(one.system)]
    most = max(same, key=_train_cases)
    if most is one.system:
        return {}
    told = difference(one.results, study.results(most, one.cohort, one.split), PRIMARY)
    return {"difference": told.mean, "difference_interval": interval(told.low, told.high, signed=True)}


def _without_size(system: System) -> dict[str, object]:
    facts = full_facts(system.experiment)
    return {key: value for key, value in facts.items() if key != "data.train_cases"}


def _settings(system: System) -> dict[str, Cell]:
    """Of a system trained by optimal transport the keys of `_OT`; empty for another."""
    facts = full_facts(system.experiment)
    if facts["method.name"] != "neural-ot":
        return {}
    told: dict[str, Cell] = {column.key: facts[column.key] for column in _OT}
    if told["method.blur_of_spread"] is not None:
        told["method.blur"] = None  # not in use
    return told


def _objective(system: System) -> dict[str, Cell]:
    """The method's name, with the loss where it has a choice of losses."""
    if system.kind != "ours":
        return {}
    facts = full_facts(system.experiment)
    name, loss = facts["method.name"], facts.get("method.loss")
    told = f"{name}, {loss}" if isinstance(loss, str) else name
    return {"objective": told, "training.batch": facts["training.batch"]}
