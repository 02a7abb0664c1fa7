"""Which views each system listens to, in pictures (the paper's Fig. 8) and in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from xr2ct.evaluation.attribution import (
    PATIENTS,
    Attribution,
    attributions,
    shares,
    shown_slices,
    variability,
)
from xr2ct.reporting import pictures
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.gallery import Gallery
from xr2ct.reporting.pictures import Picture
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System
from xr2ct.reporting.table import Cell, Column, Table

_PICTURED = 4
"""Patients of whom there are pictures."""
_BRIGHTEST = 0.995
"""Quantile of a system's pixels that is the end of its colours."""

_DEFINITION = (
    "Magnitude of the gradient of the sum of the reconstruction, before it is clipped, with respect to the "
    "lifted views (to the views' own pixels for a network that takes them as they are), of the best "
    "checkpoint of each system's first seed"
)
_COLUMNS = (
    Column("system", "System"),
    Column("view", "View", "g"),
    Column("patients", "Patients", "d"),
    Column("share", "Share", ".3f"),
    Column("share_patients", "Share, CV over patients", ".3f"),
    Column("share_slices", "Share, CV over slices", ".3f"),
    Column("magnitude_patients", "Magnitude, CV over patients", ".3f"),
    Column("magnitude_slices", "Magnitude, CV over slices", ".3f"),
)


@exhibit("attribution")
def make_attribution(study: Study) -> Table | None:
    """By system and view: its share of the gradient, and how that varies."""
    rows: list[dict[str, Cell]] = []
    for system in study.systems:
        found = _attributions(study)[system.label]
        for angle, told in zip(
            system.experiment.data.views, variability(found) if found else (), strict=False
        ):
            rows.append(
                {
                    "kind": "ours",
                    "system": system.label,
                    "view": angle,
                    "patients": len(found),
                    "share": told.share,
                    "share_patients": told.share_patients,
                    "share_slices": told.share_slices,
                    "magnitude_patients": told.magnitude_patients,
                    "magnitude_slices": told.magnitude_slices,
                }
            )
    if not rows:
        return None
    caption = (
        f"{_DEFINITION}, on the first {PATIENTS} test patients of the cohort trained on, or as many as there "
        "are. Share: of all views' mean magnitudes, which add up to 1; of a single view it is 1. CV: "
        "coefficient of variation (standard deviation over mean), between patients, and between the axial "
        "slices of a patient, averaged over patients. The paper finds more variation between patients than "
        "within one."
    )
    return Table("attribution", "Which views are listened to", caption, _COLUMNS, rows)


@exhibit("paper-fig8")
def make_paper_fig8(study: Study) -> Gallery | None:
    """For each system slices of one patient, then the middle slice of others; a column for each view."""
    found = [(s, a) for s in study.systems if (a := _attributions(study)[s.label])]
    if not found:
        return None
    systems = sorted((s for s, _ in found), key=lambda s: -len(s.experiment.data.views))
    every = [angle for system in systems for angle in system.experiment.data.views]
    angles = list(dict.fromkeys(every))
    heads, grid = [], []
    for system, of_system in found:
        for head, row in _rows(system, of_system[:_PICTURED]):
            heads.append(head)
            grid.append(tuple(row.get(angle) for angle in angles))
    caption = (
        f"{_DEFINITION}. Of each system first axial slices of one patient's lifted volume (the paper's upper "
        "row), then the middle one of others (its lower row); front at the top, the patient's "
        f"right on the left. Colours of a system end at the {_BRIGHTEST:.1%} quantile of its pictures. Under "
        "a picture: the view's share of that slice's magnitude."
    )
    columns = tuple(f"{angle:g}°" for angle in angles)
    return Gallery(
        "paper-fig8", "Gradients by view (the paper's Fig. 8)", caption, columns, tuple(heads), tuple(grid)
    )


def _rows(system: System, found: Sequence[Attribution]) -> list[tuple[str, dict[float, Picture]]]:
    """Heads, and pictures by angle."""
    high = float(np.quantile(np.stack([a.shown for a in found]), _BRIGHTEST))
    sliced = found[0].by_slice is not None
    places = shown_slices(system.experiment.data.size)
    middle = len(places) // 2 if sliced else 0
    told = [(found[0], i, f", slice {z}") for i, z in enumerate(places) if sliced]
    others = found[1:] if sliced else found
    told += [(a, middle, f", slice {places[middle]}" if sliced else "") for a in others]
    rows = []
    for attribution, i, where in told:
        pixels = attribution.shown[:, i]
        parts = shares(pixels.mean((1, 2), dtype=np.float64)[None])[0]
        row = {
            angle: pictures.heat(picture, high, "" if np.isnan(part) else f"{part:.0%}")
            for angle, picture, part in zip(system.experiment.data.views, pixels, parts, strict=True)
        }
        rows.append((f"{system.label}: {attribution.case}{where}", row))
    return rows


@lru_cache(maxsize=1)
def _attributions(study: Study) -> dict[str, list[Attribution]]:
    """By system; the table and the figure are of the same."""
    return {system.label: attributions(system.runs[0]) for system in study.systems}
