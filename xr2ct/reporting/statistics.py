"""What a table says of systems: means, how sure they are, and which differences are more than chance.

Two kinds of chance are kept apart: which patients were tested (the interval, by a bootstrap over patients)
and with which seed a system was trained (the spread of its seeds' means).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import stdev

import numpy as np

from xr2ct.evaluation.intervals import bootstrap_mean
from xr2ct.evaluation.results import Result


@dataclass(frozen=True)
class Summary:
    """A metric of a system on a cohort's split."""

    mean: float
    """Over seeds for each case, then over cases."""
    low: float
    """Ends of its 95 % interval over patients."""
    high: float
    spread: float
    """Standard deviation of the seeds' means; NaN with a single seed."""
    seeds: int
    patients: int
    cases: int


@dataclass(frozen=True)
class Difference:
    """How far one system is above another on the cases that all seeds of both have."""

    mean: float
    low: float
    """Ends of its 95 % interval over patients."""
    high: float
    p: float
    """Of the two-sided Wilcoxon signed-rank test over patients; NaN where there is no patient."""
    patients: int
    cases: int
    left_out: int
    """Cases that not all have."""


def summary(results: Sequence[Result], column: str) -> Summary:
    """Of `mode/metric` over a system's results on one cohort's split, one a seed; NaN where there is none."""
    values = by_case(results, column)
    patients = _patients(results)
    centre, low, high = bootstrap_mean(list(values.values()), [patients[case] for case in values])
    means = seed_means(results, column)
    return Summary(
        centre,
        low,
        high,
        stdev(means) if len(means) > 1 and all(map(math.isfinite, means)) else math.nan,
        len(results),
        len({patients[case] for case in values}),
        len(values),
    )


def by_case(results: Sequence[Result], column: str) -> dict[str, float]:
    """Case → mean over the seeds that have it, of the cases for which the metric is defined; by name."""
    found: dict[str, list[float]] = {}
    for result in results:
        for row in result.rows:
            if not math.isnan(row[column]):
                found.setdefault(row["case"], []).append(row[column])
    return {case: math.fsum(found[case]) / len(found[case]) for case in sorted(found)}


def mean(results: Sequence[Result], column: str) -> float:
    """A `Summary`'s mean alone; NaN where the metric is defined for no case."""
    values = by_case(results, column).values()
    return math.fsum(values) / len(values) if values else math.nan


def seed_means(results: Sequence[Result], column: str) -> list[float]:
    """Each seed's mean over its cases."""
    return [told for told in (result.mean(column) for result in results) if not math.isnan(told)]


def difference(first: Sequence[Result], second: Sequence[Result], column: str) -> Difference:
    """`first` minus `second` in a metric, averaged over seeds, paired by case.

    The interval is clustered by patient, and the test is over patients, each with the mean over their scans:
    scans of one are not independent.
    """
    a, b = by_case(first, column), by_case(second, column)
    every = [{row["case"] for row in r.rows if not math.isnan(row[column])} for r in (*first, *second)]
    common = sorted(set.intersection(*every)) if first and second else []
    left_out = len(set().union(*every)) - len(common)
    paired = [0.0 if a[case] == b[case] else a[case] - b[case] for case in common]  # both may be infinite
    patients = _patients((*first, *second))
    whose = [patients[case] for case in common]
    centre, low, high = bootstrap_mean(paired, whose)
    of_patient: dict[str, list[float]] = {}
    for patient, value in zip(whose, paired, strict=True):
        of_patient.setdefault(patient, []).append(value)
    means = [math.fsum(own) / len(own) for own in of_patient.values()]
    return Difference(centre, low, high, signed_rank(means), len(of_patient), len(common), left_out)


def signed_rank(differences: Sequence[float]) -> float:
    """p of the two-sided Wilcoxon signed-rank test (Biometrics Bulletin 1:80, 1945) that they lie about 0.

    Exact for up to 50 without ties. 1 where all are 0, NaN where there is none.
    """
    from scipy.stats import wilcoxon  # takes a second

    if not differences:
        return math.nan
    if not any(differences):
        return 1.0
    return float(wilcoxon(np.asarray(differences, dtype=np.float64)).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Each p adjusted for all of them (Holm, Scandinavian Journal of Statistics 6:65, 1979).

    The k-th smallest of m is multiplied by m − k + 1, and no adjusted p is below that of a smaller one: what
    stays below α is claimed with a chance of at most α that any claim is false. A NaN stays, and is no test.
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    adjusted, highest = list(p_values), 0.0
    for k, i in enumerate(order):
        highest = max(highest, min(1.0, (len(order) - k) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def _patients(results: Sequence[Result]) -> dict[str, str]:
    """Case → patient, of all results; a file that names the patient stands before one that does not."""
    known: dict[str, str] = {}
    for result in results:
        for case, patient in result.patients.items():
            if patient != case or case not in known:
                known[case] = patient
    return known
