"""Truth and every system side by side, after the paper's Figs. 4, 5 and 9: as projections, and as planes.

For each cohort the median patient by the first system's honest PSNR. Predictions from elsewhere have no
picture: their volumes are not kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.reporting import pictures
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.gallery import Gallery
from xr2ct.reporting.patients import Volumes, choose, projections, reconstruct_case, scored
from xr2ct.reporting.pictures import Picture
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.stages import load_stages
from xr2ct.store import Store
from xr2ct.weights import checkpoint_geometry

_VIEWS = {"frontal": 0.0, "lateral": 90.0}
_PLANES = ("axial", "coronal")

Key = tuple[str, str]
"""Label of a system, and cohort."""


@dataclass(frozen=True)
class _Median:
    """The median patient of each cohort, as every system makes it."""

    cases: dict[str, str] = field(default_factory=dict)
    """Cohort → case."""
    first: dict[str, str] = field(default_factory=dict)
    """Cohort → the system that chose it, and whose truth is shown."""
    volumes: dict[Key, Volumes] = field(default_factory=dict)
    psnr: dict[Key, float] = field(default_factory=dict)

    def note(self, label: str, cohort: str, said: bool) -> str:
        return f"{self.psnr[label, cohort]:.2f} dB" if said else ""


@exhibit("projections")
def make_projections(study: Study) -> Gallery:
    """Line integrals of each volume, frontal and lateral, all on the window of the truth's."""
    found = _median_patients(study)
    systems = {system.label: system for system in study.systems}

    def picture(label: str | None, cohort: str, view: str) -> Picture:
        first = found.first[cohort]
        truth = _seen(found.volumes[first, cohort].truth_hu, systems[first], view)
        if label is None:
            return pictures.grey(truth, 0, float(truth.max()))
        seen = _seen(found.volumes[label, cohort].made_hu, systems[label], view)
        return pictures.grey(seen, 0, float(truth.max()), found.note(label, cohort, view == "frontal"))

    geometry = study.systems[0].experiment.data.geometry
    told = (
        f"Line integrals of each volume through the geometry {geometry}, frontal (0°) and lateral (90°), on "
        "the window of the CT's own at the same size."
    )
    return _side_by_side("projections", "Projections of reconstructions", told, study, tuple(_VIEWS), picture)


@exhibit("planes")
def make_planes(study: Study) -> Gallery:
    """The middle axial and coronal plane of each volume."""
    found = _median_patients(study)
    low, high = pictures.DISPLAY_HU

    def picture(label: str | None, cohort: str, plane: str) -> Picture:
        if label is None:
            truth = found.volumes[found.first[cohort], cohort].truth_hu
            return pictures.grey(pictures.planes(truth)[plane], low, high)
        made = pictures.planes(found.volumes[label, cohort].made_hu)[plane]
        return pictures.grey(made, low, high, found.note(label, cohort, plane == "axial"))

    told = f"Middle planes on {low:g} to {high:g} HU."
    return _side_by_side("planes", "Planes of reconstructions", told, study, _PLANES, picture)


def _side_by_side(
    name: str,
    title: str,
    told: str,
    study: Study,
    shown: tuple[str, ...],
    picture: Callable[[str | None, str, str], Picture],
) -> Gallery:
    """A row for each cohort and what is shown of it; the CT, then a column for each system."""
    found = _median_patients(study)
    labels = [system.label for system in study.systems]
    rows, grid = [], []
    for cohort in found.cases:
        for what in shown:
            rows.append(f"{cohort}, {what}")
            made = [picture(s, cohort, what) if (s, cohort) in found.volumes else None for s in labels]
            grid.append((picture(None, cohort, what), *made))
    cases = ", ".join(f"{cohort} {case}" for cohort, case in found.cases.items())
    caption = (
        f"{told} The median patient of each cohort by the honest PSNR of {labels[0]}: {cases}. Under a "
        "picture: honest PSNR of that volume."
        + (" Of several seeds the first." if any(len(s.seeds) > 1 for s in study.systems) else "")
        + (
            " Predictions from elsewhere are scored and not kept."
            if any(s.kind == "elsewhere" for s in study.others)
            else ""
        )
    )
    return Gallery(name, title, caption, ("CT", *labels), tuple(rows), tuple(grid))


@lru_cache(maxsize=1)
def _median_patients(study: Study) -> _Median:
    """Both exhibits show the same volumes, made once, one mapper at a time."""
    found = _Median()
    for system in study.systems:
        results = scored(study, system)
        for result in results:
            scores = {row["case"]: row[PRIMARY] for row in result.rows}
            found.cases.setdefault(result.cohort, choose(scores)["median"])
            found.first.setdefault(result.cohort, system.label)
        experiment = system.experiment
        stages = load_stages(system.runs[0].best, experiment.evaluation.weights)
        for result in results:
            case = found.cases[result.cohort]
            scores = {row["case"]: row[PRIMARY] for row in result.rows}
            if case not in scores:
                continue  # this system was scored on other cases
            store = Store.open(experiment.data.store(result.cohort))
            of_store = next(c for c in store.cases if c.id == case)
            key = system.label, result.cohort
            found.volumes[key] = reconstruct_case(store, of_store, stages)
            found.psnr[key] = scores[case]
    return found


def _seen(hu: np.ndarray, system: System, view: str) -> np.ndarray:
    """Line integrals (row, col) of a volume of a system."""
    experiment = system.experiment
    assert experiment.resolved is not None
    geometry = checkpoint_geometry(experiment)
    coarse = replace(geometry, pixels=min(geometry.pixels, pictures.MOST_PIXELS))
    return projections(hu, experiment.resolved.cube_mm, coarse, [_VIEWS[view]])[0]
