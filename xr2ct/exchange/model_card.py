"""A model's card: what it learnt from, how well it does, what it is for, and what it is not."""

from __future__ import annotations

import math
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from pydantic import BaseModel, ConfigDict

from xr2ct.config import Experiment
from xr2ct.errors import UserError
from xr2ct.evaluation.results import ASIDE, Result, read_results
from xr2ct.reporting.statistics import summary
from xr2ct.run import Run

METRICS = (
    "honest/psnr",
    "honest/ssim",
    "honest/mae_hu",
    "honest_lungs/mae_hu",
    "rc2024/psnr",
    "reprojection/relative_l2",
)
"""Shown of each row, by mode and metric."""
MAPPER = "mapper"
BESIDE = ("prior-mean", "prior-nearest", "truth")
"""Rows without a checkpoint, to read the model's against."""
SYNTHETIC = "SYN-"
"""How the names of synthetic patients begin (`cohorts.phantom.patient_id`)."""

NOT_A_DEVICE = (
    "Not a medical device. Not for diagnosis, planning of treatment or any other decision about a patient."
)
INTENDED_USE = (
    "Research on the reconstruction of chest volumes from a few X-rays: comparison of methods, studies of "
    "data, teaching."
)
LIMITS = (
    "A few X-rays do not determine a volume: what they leave open is filled in from the chests that were "
    "learnt from, and looks no less real than what was seen.",
    "Findings may be missing, displaced, or there where the patient has none.",
    "Figures hold for the cohorts that they are of. On other scanners, people, poses and diseases it may do "
    "worse.",
    "X-rays have to be taken as stated below; others make a volume that is wrong and looks right.",
)


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class Cohort(_Part):
    """Where patients come from; of one that is not public nothing but that."""

    name: str
    public: bool
    synthetic: bool | None = None
    """Whether all are synthetic chests in the manner of that cohort; None where nobody has looked."""
    collection: str = ""
    license: str = ""
    doi: str = ""
    citation: str = ""


class Learnt(_Part):
    """What a stage learnt from."""

    cohort: Cohort
    cases: int | None = None
    """None where the store was not at hand, or not as it was."""
    patients: int | None = None


class Interval(_Part):
    """A mean over cases with its 95 % interval over patients; None where there is none."""

    mean: float | None
    low: float | None
    high: float | None


class Row(_Part):
    """What was scored on a cohort's split."""

    what: str
    """``mapper``, a way of reconstructing with it (`config.Way.label`), or a row of `BESIDE`."""
    cohort: Cohort
    split: str
    patients: int
    cases: int
    metrics: dict[str, Interval]


class Training(_Part):
    """How it was trained."""

    step: int | None
    steps: int
    method: str
    network: str
    batch: int
    precision: str
    seed: int
    weights: str
    commit: str | None
    versions: dict[str, str]


class Taken(_Part):
    """How its X-rays are taken, and what its volume is."""

    views_deg: tuple[float, ...]
    sad_mm: float
    sid_mm: float
    detector_mm: float
    pixels: int
    cube_mm: float
    size: int
    hu_window: tuple[float, float]


class Card(_Part):
    """All of it."""

    name: str
    label: str | None = None
    learnt: tuple[Learnt, ...]
    """Of the model itself, then of the stages before it."""
    rows: tuple[Row, ...] = ()
    training: Training
    taken: Taken
    intended_use: str = INTENDED_USE
    limits: tuple[str, ...] = LIMITS
    not_a_device: str = NOT_A_DEVICE


class Cohorts:
    """Cohorts as a card may name them: of those that are not public nothing, not even their names."""

    def __init__(self) -> None:
        self._private: dict[str, str] = {}

    def cohort(self, name: str, patients: list[str] | None = None) -> Cohort:
        """With patients' names, whether they are synthetic is told."""
        from xr2ct.cohorts.catalogue import catalogue

        entry = catalogue().get(name)
        synthetic = None if not patients else all(p.startswith(SYNTHETIC) for p in patients)
        if entry is None or not entry.public:
            number = len(self._private) + 1
            return Cohort(
                name=self._private.setdefault(name, f"private-{number}"), public=False, synthetic=synthetic
            )
        if synthetic:  # nothing of it is the collection's
            return Cohort(name=name, public=True, synthetic=True)
        told = {key: getattr(entry, key) for key in ("collection", "license", "doi", "citation")}
        return Cohort(name=name, public=True, synthetic=synthetic, **told)


def compose_card(
    experiments: tuple[Experiment, ...],
    checkpoint: str,
    weights: str,
    run: Run | None,
) -> Card:
    """The card of a checkpoint of `run`; without one, of a checkpoint alone, that has no scores.

    experiments: the model's own, then of the stages before it, as they were trained.
    """
    first, names = experiments[0], Cohorts()
    resolved = first.resolved
    assert resolved is not None
    geometry: Mapping[str, Any] = resolved.geometry
    return Card(
        name=first.name,
        label=first.label,
        learnt=tuple(_learnt(experiment, names) for experiment in experiments),
        rows=tuple(_rows(run, checkpoint, weights, names)) if run else (),
        training=Training(
            step=int(checkpoint.removeprefix("step-")) if checkpoint[5:].isdigit() else None,
            steps=first.training.steps,
            method=str(first.method.get("name", "neural-ot")),
            network=str(first.mapper.get("name", "swin-unetr")),
            batch=first.training.batch,
            precision=resolved.precision,
            seed=first.seed,
            weights=weights,
            commit=resolved.commit,
            versions=resolved.versions,
        ),
        taken=Taken(
            views_deg=first.data.views,
            **{key: geometry[key] for key in ("sad_mm", "sid_mm", "detector_mm", "pixels")},
            cube_mm=resolved.cube_mm,
            size=first.data.size,
            hu_window=first.data.hu_window,
        ),
    )


def _learnt(experiment: Experiment, names: Cohorts) -> Learnt:
    """Cases are counted in the store, if it is at hand and as it was."""
    from xr2ct.store import StoreError

    name, resolved = experiment.data.cohort, experiment.resolved
    with suppress(UserError, StoreError, OSError, ModuleNotFoundError):  # [infer] alone counts nothing
        from xr2ct.evaluation.pairs import Stores, learnt_from

        store, cases = learnt_from(experiment, Stores())
        checksum = store.checksum(experiment.data.size, experiment.data.geometry)
        if resolved is not None and resolved.stores.get(name) == checksum:
            patients = sorted({case.patient for case in cases})
            return Learnt(cohort=names.cohort(name, patients), cases=len(cases), patients=len(patients))
    return Learnt(cohort=names.cohort(name))


def _rows(run: Run, checkpoint: str, weights: str, names: Cohorts) -> list[Row]:
    """Of the checkpoint with these weights, in each way that was scored, and of the rows beside it."""
    rows = []
    for result in [*read_results(run), *read_results(run, aside=True)]:
        what = _what(result, checkpoint, weights)
        if what is None:
            continue
        told = {column: summary([result], column) for column in METRICS}
        patients = sorted(set(result.patients.values()))
        row = Row(
            what=what,
            cohort=names.cohort(result.cohort, patients),
            split=result.split,
            patients=len(patients),
            cases=len(result.rows),
            metrics={
                column: Interval(mean=_finite(s.mean), low=_finite(s.low), high=_finite(s.high))
                for column, s in told.items()
                if s.cases
            },
        )
        rows.append(row)
    return sorted(rows, key=lambda row: (row.cohort.name, row.split, row.what in BESIDE, row.what != MAPPER))


def _what(result: Result, checkpoint: str, weights: str) -> str | None:
    """What a row is called; None where it is not of this model."""
    if result.source in BESIDE:
        return result.source
    source, _, way = result.source.partition(ASIDE)
    if source != checkpoint or result.rows[0]["weights"] != weights or way.startswith("without-"):
        return None
    return way or MAPPER


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
