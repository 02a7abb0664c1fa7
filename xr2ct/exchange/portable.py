"""A run's configuration for other people: without folders, machines, trackers and patients."""

from __future__ import annotations

from typing import Any

from xr2ct.cohorts.catalogue import catalogue
from xr2ct.cohorts.names import COHORTS
from xr2ct.config import Experiment, Tracking


def portable(experiment: Experiment) -> dict[str, Any]:
    """Values that make the same mapper wherever they are read.

    Cohorts of a laboratory's own are left out, public or not, since others' catalogues lack them.
    """
    values = experiment.model_dump(mode="json")
    known = [name for name in COHORTS if catalogue()[name].public]
    data, resolved = values["data"], values["resolved"]
    data |= {"stores": "stores", "phantoms": {}}
    if data["cohort"] not in known:
        del data["cohort"]
    values["evaluation"]["cohorts"] = [name for name in values["evaluation"]["cohorts"] if name in known]
    if values["coarse"] is not None:
        values["coarse"]["run"] = "coarse"
    resolved |= {"stores": {}, "excluded": {}}
    tracking = Tracking().model_dump(mode="json")
    gone = {"run_root": "runs", "tracking": tracking, "deepspeed": {}, "exhibits": [], "variants": {}}
    components = {part: _without_paths(values[part]) for part in ("mapper", "method")}
    return values | gone | components


def _without_paths(keys: dict[str, Any]) -> dict[str, Any]:
    """A component's keys but those that name a file."""
    return {key: value for key, value in keys.items() if not (isinstance(value, str) and "/" in value)}
