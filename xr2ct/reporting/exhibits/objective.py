"""Studies of what is learnt from and by which objective: training-set size, and optimal transport itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.registry import component
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.rows import (
    INTERVAL,
    PATIENTS,
    SEEDS,
    SPREAD,
    Scored,
    counts,
    interval,
    scored,
    with_scans,
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
_OT_KEYS = ("blur", "blur_of_spread", "batch", "potential_weight", "mapper_updates")


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
    return Table("data-efficiency", "Training-set size", caption, with_scans(columns, rows), rows)


@exhibit("ot")
def ot(study: Study) -> Table | None:
    """By the transport's own settings, beside what needs none; None where all systems have the same."""
    settings = {system.label: _settings(system) for system in study.systems}
    if len({tuple(told[key] for key in _OT_KEYS) for told in settings.values() if told}) < 2:
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
        Column("blur", "Blur", "g"),
        Column("blur_of_spread", "Blur of spread", "g"),
        Column("batch", "Batch", "d"),
        Column("potential_weight", "λ", "g"),
        Column("mapper_updates", "k", "d"),
        *_SCORES,
    )
    caption = (
        "Honest PSNR and SSIM on test splits by the settings of optimal transport: its blur in units of "
        "features, or as a multiple of their spread; the global batch that it sees; λ, the potential's "
        f"weight in the mapper's loss; k, the mapper's updates for each of the potential. {INTERVAL} {SPREAD}"
    )
    return Table("ot", "Optimal transport", caption, with_scans(columns, rows), rows)


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


def _without_size(system: System) -> Mapping[str, Any]:
    experiment = system.experiment
    names = {"name", "label", "seed", "run_root", "tracking", "resolved", "exhibits", "variants"}
    data = experiment.data.model_copy(update={"train_cases": None})
    return experiment.model_copy(update={"data": data}).model_dump(mode="json", exclude=names)


def _settings(system: System) -> dict[str, Cell]:
    """`_OT_KEYS` of a system trained by optimal transport, defaults filled in; empty for another."""
    told = dict(system.experiment.method)
    if (name := told.pop("name")) != "neural-ot":
        return {}
    config = component("xr2ct.methods", name).Config.model_validate(told).model_dump()
    config["batch"] = system.experiment.training.batch
    if config["blur_of_spread"] is not None:
        config["blur"] = None
    return {key: config[key] for key in _OT_KEYS}


def _objective(system: System) -> dict[str, Cell]:
    """The method's name, with the loss where it has a choice of losses."""
    if system.kind != "ours":
        return {}
    method = system.experiment.method
    loss = method.get("loss")
    told = f"{method['name']}, {loss}" if isinstance(loss, str) else str(method["name"])
    return {"objective": told, "batch": system.experiment.training.batch}
