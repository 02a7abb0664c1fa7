"""Seven messy cohorts in one folder, and what was planted in them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import numpy as np

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.catalogue import cohort as entry
from xr2ct.cohorts.names import COHORTS
from xr2ct.cohorts.phantom.shifts import SHIFTS
from xr2ct.cohorts.volume import NativeVolume
from xr2ct.errors import UserError
from xr2ct.seeds import derive_seed, generator

from .chests import Chest, as_another, make_chests
from .messes import MESSES, Mess, Patient
from .truth import Truth, write_truth

CUBES = "cubes.npy"
CUBE_SIZE = 32
CHESTS = 8

Job = tuple[str, int, Mess]
"""Cohort, number of the patient, mess."""


def make_tree(
    out: Path,
    patients: int,
    seed: int,
    workers: int = 1,
    chests: int = CHESTS,
    cohorts: Sequence[str] = COHORTS,
) -> list[Truth]:
    """Write `patients` in `cohorts`, every mess in turn; returns what was planted, as OUT/truth.csv has it.

    OUT/cubes.npy holds the cube of every chest, by which a case is told to hold the right one.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError(f"{out}: expected an empty folder to write to")
    out.mkdir(parents=True, exist_ok=True)
    made = make_chests(chests, seed, workers)
    np.save(out / CUBES, np.stack([_cube(chest) for chest in made]))
    jobs = list(_jobs(patients, cohorts))
    write = partial(_write_patient, out, seed, made)
    if workers == 1:
        written = [write(job) for job in jobs]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            written = list(pool.map(write, jobs, chunksize=8))
    truth = [line for lines in written for line in lines]
    write_truth(out, truth)
    return truth


def _jobs(patients: int, cohorts: Sequence[str]) -> Iterator[Job]:
    """Patients in turn to the cohorts; each cohort goes through the messes from a place of its own."""
    for number in range(patients):
        turn, place = divmod(number, len(cohorts))
        yield cohorts[place], turn + 1, MESSES[(turn + place * len(MESSES) // len(cohorts)) % len(MESSES)]


def _write_patient(out: Path, seed: int, chests: Sequence[Chest], job: Job) -> list[Truth]:
    cohort, number, mess = job
    own = derive_seed(seed, "messy patient", cohort, number)
    which = int(generator(own, "chest").integers(len(chests)))
    patient = Patient(
        root=out / cohort,
        cohort=cohort,
        rule=entry(cohort).rule,
        id=f"{SHIFTS[cohort].prefix}-{number:04d}",
        chest=as_another(chests[which], own),
        number=which,
        root_uid=f"2.25.{own}",
        seed=own,
        mess=mess.__name__.replace("_", " "),
    )
    patient.root.mkdir(exist_ok=True)
    return list(mess(patient))


def _cube(chest: Chest) -> np.ndarray:
    return canonical_cubes(NativeVolume(chest.hu, chest.spacing_mm, {}), [CUBE_SIZE]).cubes[CUBE_SIZE]
