"""How sure a mean is: the percentile bootstrap (Efron, Annals of Statistics 7:1, 1979), clustered by patient.

Scans of one patient are no independent observations, so patients are drawn with all that they have (the
cluster bootstrap of Field and Welsh, Journal of the Royal Statistical Society B 69:369, 2007).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from functools import lru_cache

import numpy as np

from xr2ct.seeds import generator

RESAMPLES = 10_000


def bootstrap_mean(
    values: Sequence[float],
    patients: Sequence[Hashable] | None = None,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """The mean of values and both ends of its bootstrap interval at `level`; NaN where there are none.

    patients: whose each value is; each value of somebody else where left out. The same values in any order
    give the same interval.
    """
    if not values:
        return (math.nan,) * 3
    of_patient: dict[Hashable, list[float]] = {}
    for patient, value in zip(range(len(values)) if patients is None else patients, values, strict=True):
        of_patient.setdefault(patient, []).append(value)
    clusters = sorted((math.fsum(own), len(own)) for own in of_patient.values())
    sums, counts = (np.asarray(column, dtype=np.float64) for column in zip(*clusters, strict=True))
    drawn = _draws(len(clusters), seed)
    with np.errstate(invalid="ignore"):  # the PSNR of a flawless volume is infinite
        means = sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return math.fsum(values) / len(values), float(low), float(high)


@lru_cache(maxsize=16)
def _draws(patients: int, seed: int) -> np.ndarray:
    """(resample, patient) indices; a report asks for the same few numbers of patients hundreds of times."""
    return generator(seed, "bootstrap", patients).integers(patients, size=(RESAMPLES, patients))
