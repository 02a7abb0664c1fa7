"""Chosen patients as pictures: X-rays in, truth, reconstruction and difference, and the X-rays made again."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from xr2ct.config import Data
from xr2ct.evaluation.reprojection import project_unit
from xr2ct.loading.loader import sequential
from xr2ct.models.mapper import Mapper
from xr2ct.projection.geometry import Geometry
from xr2ct.reporting import pictures
from xr2ct.store import Case, Store
from xr2ct.window import HuWindow


@dataclass(frozen=True)
class Patient:
    """One case as the mapper sees it, and what it makes of it."""

    case: str
    angles: tuple[float, ...]
    xrays: np.ndarray
    """(view, row, col) line integrals that came in."""
    truth_hu: np.ndarray
    """(z, y, x)."""
    reconstruction_hu: np.ndarray
    reprojections: np.ndarray
    """(view, row, col) line integrals of the reconstruction."""


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


def reconstruct_case(
    store: Store, case: Case, mapper: Mapper, data: Data, geometry: Geometry, cube_mm: float
) -> Patient:
    """Run the mapper on a case of a store, and project what it made again."""
    window = HuWindow(*data.hu_window)
    batch = next(iter(sequential(store, [case], data, batch=1, device=torch.device("cpu"))))
    with torch.inference_mode():
        unit = mapper(*batch.inputs)[:, 0].clamp(0, 1)
        again = project_unit(unit, window, cube_mm, geometry, data.views)[0]
    return Patient(
        case.id,
        data.views,
        store.xray(case, data.geometry, data.views),
        window.to_hu(window.to_unit(store.volume(case, data.size).astype(np.float32))),
        window.to_hu(unit[0].numpy()),
        again.numpy(),
    )


def patient_html(patient: Patient, heading: str) -> str:
    """A patient as a matrix of pictures: what is true, what was made of it, and the difference under it."""
    low, high = pictures.DISPLAY_HU
    truth, made = pictures.planes(patient.truth_hu), pictures.planes(patient.reconstruction_hu)
    columns = [
        (
            (pictures.grey(truth[plane], low, high), f"{plane}, CT"),
            (pictures.grey(made[plane], low, high), f"{plane}, reconstruction"),
            (
                pictures.signed(made[plane] - truth[plane], pictures.DIFFERENCE_HU),
                f"difference, ±{pictures.DIFFERENCE_HU:g} HU",
            ),
        )
        for plane in truth
    ]
    top = float(patient.xrays.max())
    columns += [
        (
            (pictures.grey(xray, 0, top), f"{angle:g}°, X-ray in"),
            (pictures.grey(again, 0, top), f"{angle:g}°, projected again"),
            (pictures.signed(again - xray, top / 2), f"difference, ±{top / 2:.1f}"),
        )
        for angle, xray, again in zip(patient.angles, patient.xrays, patient.reprojections, strict=True)
    ]
    tiles = "".join(
        pictures.figure_tag(source, caption) for row in zip(*columns, strict=True) for source, caption in row
    )
    return (
        f'<h3>{html.escape(heading)}</h3><div class="tiles" style="--columns: {len(columns)}">{tiles}</div>'
    )
