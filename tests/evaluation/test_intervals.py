"""The bootstrap against what theory says of it."""

from __future__ import annotations

import math

import numpy as np
import pytest

from xr2ct.evaluation.intervals import bootstrap_mean


def test_is_the_normal_interval_for_many_patients() -> None:
    values = np.random.default_rng(0).normal(20, 3, 400)
    mean, low, high = bootstrap_mean(list(values))
    half = 1.96 * values.std() / math.sqrt(400)
    assert mean == pytest.approx(values.mean())
    assert (low, high) == pytest.approx((mean - half, mean + half), abs=0.02)


def test_covers_the_true_mean_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = sum(
        low <= 5 <= high for _, low, high in (bootstrap_mean(list(rng.exponential(5, 60))) for _ in range(80))
    )
    assert 0.85 < hits / 80 <= 1


def test_is_the_same_each_time_and_in_any_order() -> None:
    values = list(np.random.default_rng(2).normal(size=30))
    assert bootstrap_mean(values) == bootstrap_mean(values[::-1])
    assert bootstrap_mean(values) != bootstrap_mean(values, seed=1)


def test_one_patient_and_none() -> None:
    assert bootstrap_mean([7.0]) == (7, 7, 7)
    assert all(map(math.isnan, bootstrap_mean([])))
