"""Chosen patients as pictures: X-rays in, truth, reconstruction and difference, and the X-rays made again."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xr2ct.config import Data
from xr2ct.evaluation.metrics import PRIMARY
from xr2ct.evaluation.reprojection import project_hu
from xr2ct.evaluation.results import Result
from xr2ct.evaluation.truth import unit_window
from xr2ct.loading.loader import sequential
from xr2ct.projection.geometry import Geometry
from xr2ct.reporting import pictures
from xr2ct.reporting.gallery import Gallery
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.stages import Stages, load_stages
from xr2ct.store import Case, Store
from xr2ct.weights import checkpoint_geometry


@dataclass(frozen=True)
class Volumes:
    """One case on the window that it is scored on, float32 HU (z, y, x)."""

    case: str
    truth_hu: np.ndarray
    made_hu: np.ndarray
    """What the mapper makes of its X-rays."""


def choose(scores: Mapping[str, float], places: Sequence[str] = ("median",)) -> dict[str, str]:
    """Cases by their place in a score's order: ``worst``, ``median``, ``best``; a case stands once."""
    ranked = sorted(scores, key=lambda case: (scores[case], case))
    at = {"worst": 0, "median": len(ranked) // 2, "best": len(ranked) - 1}
    chosen: dict[str, str] = {}
    for place in places:
        case = ranked[at[place]]
        if case not in chosen.values():
            chosen[place] = case
    return chosen


def reconstruct_case(store: Store, case: Case, stages: Stages) -> Volumes:
    """Run a mapper on a case of a store."""
    data = stages.experiment.data
    hu = store.volume(case, data.size)
    window = unit_window(hu, data)
    batch = next(iter(sequential(store, [case], data, batch=1, device=torch.device("cpu"))))
    unit = stages(batch.views, batch.seeds)[0, 0]
    truth = window.to_hu(window.to_unit(hu.astype(np.float32)))
    return Volumes(case.id, truth, window.to_hu(unit.float().numpy()))


def projections(
    hu: np.ndarray, cube_mm: float, geometry: Geometry, angles_deg: Sequence[float]
) -> np.ndarray:
    """Line integrals (view, row, col) of a volume in HU (z, y, x), as an X-ray machine would see it."""
    with torch.inference_mode():
        return project_hu(torch.from_numpy(hu)[None], cube_mm, geometry, angles_deg)[0].numpy()


def patient_gallery(
    volumes: Volumes, xrays: np.ndarray, data: Data, geometry: Geometry, cube_mm: float
) -> Gallery:
    """A patient as a matrix of pictures: what is true, what was made of it, and the difference under it.

    xrays: (view, row, col) line integrals that came in, in the order of `data.views`.
    """
    low, high = pictures.DISPLAY_HU
    limit = pictures.DIFFERENCE_HU
    truth, made = pictures.planes(volumes.truth_hu), pictures.planes(volumes.made_hu)
    columns = {
        plane: (
            pictures.grey(truth[plane], low, high, "CT"),
            pictures.grey(made[plane], low, high, "reconstruction"),
            pictures.signed(made[plane] - truth[plane], limit, f"difference, ±{limit:g} HU"),
        )
        for plane in truth
    }
    top = float(xrays.max())
    again = projections(volumes.made_hu, cube_mm, geometry, data.views)
    for angle, xray, projected in zip(data.views, xrays, again, strict=True):
        seen, made_again = pictures.coarser(xray), pictures.coarser(projected)
        columns[f"{angle:g}°"] = (
            pictures.grey(seen, 0, top, "X-ray in"),
            pictures.grey(made_again, 0, top, "projected again"),
            pictures.signed(made_again - seen, top / 2, f"difference, ±{top / 2:.1f}"),
        )
    return Gallery(
        f"patient-{volumes.case}",
        volumes.case,
        f"Planes on {low:g} to {high:g} HU; X-rays as line integrals on 0 to {top:.1f}.",
        tuple(columns),
        ("",) * 3,
        tuple(zip(*columns.values(), strict=True)),
    )


def scored(study: Study, system: System) -> list[Result]:
    """Of a system's first run the results on test splits, or on validation where a cohort has none."""
    mine = [r for r in study.results(system) if r.run == system.runs[0].path.name]
    tested = {r.cohort for r in mine if r.split == "test"}
    return [r for r in mine if r.split == "test" or r.cohort not in tested]


def patients_html(study: Study, system: System) -> Iterator[str]:
    """Patients of a system's first run, each under its heading: of one system the median patient of every
    cohort, and of the training cohort the worst and the best too; of several the training cohort's median."""
    run, experiment = system.runs[0], system.experiment
    data = experiment.data
    assert experiment.resolved is not None
    geometry, cube_mm = checkpoint_geometry(experiment), experiment.resolved.cube_mm
    stages = load_stages(run.best, experiment.evaluation.weights)
    alone = len(study.systems) == 1
    for result in scored(study, system):
        trained_on = result.cohort == data.cohort
        if not (trained_on or alone):
            continue
        scores = {row["case"]: row[PRIMARY] for row in result.rows}
        store = Store.open(data.store(result.cohort))
        cases = {case.id: case for case in store.cases}
        places = ("median", "worst", "best") if trained_on and alone else ("median",)
        for place, name in choose(scores, places).items():
            volumes = reconstruct_case(store, cases[name], stages)
            xrays = store.xray(cases[name], data.geometry, data.views)
            gallery = patient_gallery(volumes, xrays, data, geometry, cube_mm)
            where = f"{result.cohort} {result.split}, {place} patient: {name}, {scores[name]:.2f} dB"
            yield f"<h3>{html.escape(f'{system.label}: {where}')}</h3>{gallery.html()}"
