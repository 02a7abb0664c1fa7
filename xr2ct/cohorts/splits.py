"""Splits: which patients are learnt from, which choose a checkpoint, which are tested on."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from xr2ct.cohorts.names import SPLITS
from xr2ct.errors import UserError, nearest
from xr2ct.seeds import derive_seed
from xr2ct.shipped import shipped

DRAWN = ("seeded", "test")
"""Splits that need no list: drawn by seed (`assign_splits`), and everybody a test patient."""


def resolve_splits(value: str | Path) -> Mapping[str, str] | Literal["seeded", "test"]:
    """What a cohort's `splits`, or the one asked for instead, stands for.

    `seeded` and `test` stand for themselves; the name of a list in configs/splits/ and a path (a `Path`, or
    text with a folder or ``.csv`` in it) for patient → split, by which patients in no line are left out.
    Raises `UserError` for an unknown name, with the nearest valid one, and for an unreadable list.
    """
    if value == "seeded":
        return "seeded"
    if value == "test":
        return "test"
    if isinstance(value, Path) or "/" in value or value.endswith(".csv"):
        return read_split_list(Path(value))
    lists = {path.stem: path for path in shipped("configs/splits").glob("*.csv")}
    if value not in lists:
        raise UserError(f"unknown splits {value!r}: {nearest(value, [*DRAWN, *lists])} (or a CSV's path)")
    return read_split_list(lists[value])


def assign_splits(
    patients: Sequence[str], seed: int, fractions: tuple[float, float, float] = (0.8, 0.1, 0.1)
) -> dict[str, str]:
    """Each patient's split: train, val, test in these fractions, whatever the order of `patients`.

    The counts are exact (largest remainder), and no split with a fraction stays empty while there are
    patients enough. Patients are ranked by a hash of seed and name, validation taken from the low end and
    test from the high one, so another patient moves at most one across each border. Raises `UserError`
    unless the fractions are three from 0 to 1 with a sum of 1.
    """
    if len(fractions) != 3 or min(fractions) < 0 or not math.isclose(sum(fractions), 1.0, abs_tol=1e-6):
        raise UserError(f"split fractions {fractions}: expected train, val, test from 0 to 1, summing to 1")
    ranked = sorted(set(patients), key=lambda patient: (derive_seed(seed, "split", patient), patient))
    _, val, test = _counts(len(ranked), fractions)
    names = ["val"] * val + ["train"] * (len(ranked) - val - test) + ["test"] * test
    return dict(sorted(zip(ranked, names, strict=True)))


def read_split_list(path: Path) -> dict[str, str]:
    """Patient → split from a CSV with the columns `patient` and `split`; others are passed over.

    Raises `UserError` with the line: another header, an unknown split, a patient in two splits.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as a split list ({error})") from error
    if not rows or not {"patient", "split"} <= rows[0].keys():
        raise UserError(f"{path}: expected a CSV with the header 'patient,split' and a line for each patient")
    splits: dict[str, str] = {}
    for number, row in enumerate(rows, start=2):
        patient, split = (row["patient"] or "").strip(), (row["split"] or "").strip()
        if not patient:
            raise UserError(f"{path}, line {number}: no patient")
        if split not in SPLITS:
            raise UserError(f"{path}, line {number}: unknown split {split!r}: {nearest(split, SPLITS)}")
        if splits.setdefault(patient, split) != split:
            raise UserError(
                f"{path}, line {number}: its patient is in {splits[patient]} above and in {split} here"
            )
    return splits


def _counts(patients: int, fractions: Sequence[float]) -> list[int]:
    quotas = [patients * fraction for fraction in fractions]
    counts = [math.floor(quota + 1e-9) for quota in quotas]
    by_remainder = sorted(range(3), key=lambda i: counts[i] - quotas[i])
    for i in by_remainder[: patients - sum(counts)]:
        counts[i] += 1
    wanted = [i for i in range(3) if fractions[i] > 0]
    if patients >= len(wanted):
        for i in wanted:
            if counts[i] == 0:
                counts[counts.index(max(counts))] -= 1
                counts[i] = 1
    return counts
