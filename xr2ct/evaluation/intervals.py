"""How sure a mean over patients is: the percentile bootstrap (Efron, Annals of Statistics 7:1, 1979)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xr2ct.seeds import generator

RESAMPLES = 10_000


def bootstrap_mean(values: Sequence[float], level: float = 0.95, seed: int = 0) -> tuple[float, float, float]:
    """The mean over patients and both ends of its bootstrap interval at `level`; NaN where there are none.

    The same values in any order give the same interval.
    """
    if not values:
        return (math.nan,) * 3
    sample = np.sort(np.asarray(values, dtype=np.float64))
    drawn = generator(seed, "bootstrap", len(sample)).integers(len(sample), size=(RESAMPLES, len(sample)))
    tails = [(1 - level) / 2, (1 + level) / 2]
    low, high = np.quantile(sample[drawn].mean(axis=1), tails)
    return float(sample.mean()), float(low), float(high)
