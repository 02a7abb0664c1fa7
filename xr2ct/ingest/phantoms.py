"""Stores of synthetic chests that configurations ask for: phantom, plan and ingest, where there is no store.

A store in the making has a folder FOLDER/.phantoms/COHORT beside it, which goes when the store is whole.
Patients are made, ingested and deleted as DICOM some at a time: hundreds of them would take gigabytes, and a
command that was stopped goes on at the patients it was at.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from xr2ct.cohorts.phantom import patient_id, write_cohort
from xr2ct.cohorts.splits import assign_splits
from xr2ct.config import Experiment
from xr2ct.errors import UserError, WorkFailed
from xr2ct.ingest.command import alone, ingest
from xr2ct.projection.geometry import EIGHT_ANGLES, Geometry, mirror_angle, named_geometry
from xr2ct.run import write_atomically

log = logging.getLogger(__name__)

SEED = 0
"""Of the patients and their splits: the same for every experiment, whatever its own seed."""

AT_ONCE = 8
"""Patients whose DICOM is on the disk at one time, 10 MB each, and who are done before a stop is heard."""


@dataclass(frozen=True)
class PhantomStore:
    """A store as all experiments that name it need it together."""

    path: Path
    cohort: str
    patients: int
    learnt_from: bool
    """Whether its patients are split, 80 : 10 : 10 by seed, or all are test patients."""
    sizes: tuple[int, ...]
    geometries: tuple[Geometry, ...]
    angles: tuple[float, ...]
    """Degrees; the eight that `ingest` takes too, so that configurations made by one share them, and the
    mirrored ones where a patient is to be flipped."""

    @property
    def work(self) -> Path:
        """There while the store is not whole."""
        return self.path.parent / ".phantoms" / self.cohort

    @property
    def missing(self) -> bool:
        return self.work.is_dir() or not self.path.is_dir()

    def splits(self) -> dict[str, str]:
        """Patient → split."""
        names = [patient_id(self.cohort, number) for number in range(1, self.patients + 1)]
        return assign_splits(names, SEED) if self.learnt_from else dict.fromkeys(names, "test")


def phantom_stores(experiments: Iterable[Experiment]) -> list[PhantomStore]:
    """Every store that `data.phantoms` of some experiment names, in the order of their paths.

    Raises `UserError` for a geometry without a name, and where experiments want one store otherwise.
    """
    asked: dict[Path, PhantomStore] = {}
    for experiment in experiments:
        data = experiment.data
        for cohort, patients in data.phantoms.items():
            path, learnt_from = data.store(cohort), cohort == data.cohort
            flipped = learnt_from and experiment.augmentation.flip == "patient"
            mirrored = (mirror_angle(a) for a in data.views if flipped)
            angles = tuple(sorted({*EIGHT_ANGLES, *data.views, *mirrored}))
            further = (experiment.context_side, experiment.augmentation.pose.reproject)
            sizes = tuple(sorted({data.size, *(side for side in further if side and learnt_from)}))
            one = PhantomStore(
                path, cohort, patients, learnt_from, sizes, (named_geometry(data.geometry),), angles
            )
            asked[path] = _together(asked.get(path, one), one)
    return [asked[path] for path in sorted(asked)]


def _together(a: PhantomStore, b: PhantomStore) -> PhantomStore:
    if (a.patients, a.learnt_from) != (b.patients, b.learnt_from):
        raise UserError(
            f"{a.path}: data.phantoms asks for {_told(a)} and for {_told(b)}; "
            "give each a data.stores of its own"
        )
    return PhantomStore(
        a.path,
        a.cohort,
        a.patients,
        a.learnt_from,
        tuple(sorted({*a.sizes, *b.sizes})),
        tuple(sorted({*a.geometries, *b.geometries}, key=lambda g: g.name)),
        tuple(sorted({*a.angles, *b.angles})),
    )


def _told(store: PhantomStore) -> str:
    return f"{store.patients} patients {'to learn from' if store.learnt_from else 'to test on'}"


def make_phantom_store(
    wanted: PhantomStore, going_on: Callable[[], None], workers: int | None = None
) -> None:
    """Make a store, from wherever an earlier attempt was; a whole one is left as it is.

    going_on: asked between some patients and the next; it raises where work is to stop. Raises `UserError`
    where the store was begun otherwise, and `WorkFailed` where it cannot be made.
    """
    if not wanted.missing:
        log.info("%s: is there, and stays as it is", wanted.path)
        return
    work, workers = wanted.work, workers or os.cpu_count() or 1
    work.mkdir(parents=True, exist_ok=True)
    with alone(work):
        _refuse_other(wanted)
        splits = work / "splits.csv"
        lines = [f"{patient},{split}" for patient, split in wanted.splits().items()]
        write_atomically(splits, "\n".join(["patient,split", *lines, ""]))
        for first in range(1, wanted.patients + 1, AT_ONCE):
            going_on()
            number = min(AT_ONCE, wanted.patients + 1 - first)
            done, dicom = work / f"{first:05d}.done", work / "dicom"
            if done.exists():
                continue
            log.info(
                "%s: synthetic chests %d to %d of %d", wanted.path, first, first + number - 1, wanted.patients
            )
            shutil.rmtree(dicom, ignore_errors=True)
            try:
                write_cohort(dicom, wanted.cohort, number, SEED, start=first, workers=workers)
            except BrokenExecutor:
                going_on()  # asked to stop, as the workers were that are gone
                raise WorkFailed(f"{dicom}: a process that was writing synthetic chests is gone") from None
            ingest(
                dicom,
                wanted.path,
                wanted.cohort,
                wanted.sizes,
                wanted.geometries,
                wanted.angles,
                splits=splits,
                workers=workers,
            )
            done.touch()
        shutil.rmtree(work)
    with suppress(OSError):  # others are in the making
        work.parent.rmdir()


def _refuse_other(wanted: PhantomStore) -> None:
    """What the store is to be is written down when it is begun; `UserError` where that was something else."""
    text = json.dumps(asdict(wanted) | {"path": wanted.path.name}, indent=1)
    file = wanted.work / "wanted.json"
    if not file.exists():
        if wanted.path.is_dir():
            raise UserError(f"{wanted.work}: has no wanted.json; delete it to keep {wanted.path} as it is")
        write_atomically(file, text)
    elif file.read_text(encoding="utf-8") != text:
        raise UserError(
            f"{wanted.path}: was begun for another configuration and never finished; "
            f"delete it and {wanted.work}"
        )
