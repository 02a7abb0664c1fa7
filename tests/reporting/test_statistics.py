"""Means, intervals and tests against figures worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest

from xr2ct.evaluation.intervals import bootstrap_mean
from xr2ct.evaluation.results import Result
from xr2ct.reporting.statistics import by_case, difference, holm, mean, seed_means, signed_rank, summary

M = "honest/psnr"


def result(scores: Mapping[str, float], run: str = "run") -> Result:
    """Of a cohort's test split; a case is PATIENT or PATIENT/SCAN."""
    rows = [{"case": case, "patient": case.split("/")[0], M: value} for case, value in scores.items()]
    return Result(run, "step-000500", "lidc-idri", "test", rows)


class TestSummary:
    def test_seeds_are_averaged_for_each_case_before_cases(self) -> None:
        seeds = [result({"a": 20, "b": 24, "c": 22}), result({"a": 22, "b": 26, "c": 21})]
        told = summary(seeds, M)
        assert by_case(seeds, M) == {"a": 21, "b": 25, "c": 21.5}
        assert told.mean == mean(seeds, M) == pytest.approx(22.5)
        assert seed_means(seeds, M) == [22, 23]
        assert told.spread == pytest.approx(math.sqrt(0.5)), "of 22 and 23, n − 1 below"
        assert (told.seeds, told.patients, told.cases) == (2, 3, 3)
        assert told.low < 22.5 < told.high

    def test_the_spread_of_seeds_widens_no_interval_of_patients(self) -> None:
        near = summary([result({"a": 20, "b": 24}), result({"a": 20, "b": 24})], M)
        far = summary([result({"a": 10, "b": 14}), result({"a": 30, "b": 34})], M)
        assert (near.low, near.high) == (far.low, far.high) == (20, 24)
        assert (near.spread, far.spread) == (0, pytest.approx(math.sqrt(200)))

    def test_scans_of_a_patient_are_drawn_together(self) -> None:
        alone = {f"p{i}": float(i * i) for i in range(12)}
        twice = {f"p{i}/{scan}": float(i * i) for i in range(12) for scan in range(2)}
        one, two = summary([result(alone)], M), summary([result(twice)], M)
        assert (two.mean, two.low, two.high) == pytest.approx((one.mean, one.low, one.high))
        assert (two.patients, two.cases) == (12, 24)
        free = bootstrap_mean(list(twice.values()))
        assert free[2] - free[1] < 0.85 * (two.high - two.low), "as of 24 patients it would be about 0.71"

    def test_means_of_resamples_are_over_scans(self) -> None:
        """Of two patients, one with three scans, a resample's mean is 1, 2 or 5 with 1/4, 1/2, 1/4."""
        values, patients = [1.0, 1.0, 1.0, 5.0], ["a", "a", "a", "b"]
        assert bootstrap_mean(values, patients) == (2, 1, 5)
        assert bootstrap_mean(values, patients, level=0.4) == (2, 2, 2)

    def test_a_metric_that_is_not_defined_and_a_single_seed(self) -> None:
        told = summary([result({"a": 20, "b": math.nan})], M)
        assert (told.mean, told.low, told.high, told.cases) == (20, 20, 20, 1)
        assert math.isnan(told.spread)
        none = summary([result({"a": math.nan})], M)
        assert math.isnan(none.mean) and none.patients == 0
        assert math.isnan(mean([], M)) and summary([], M).seeds == 0

    def test_a_file_that_does_not_name_the_patient(self) -> None:
        old = Result("run", "s", "c", "test", [{"case": "a/1", "patient": "", M: 1.0}])
        assert old.patients == {"a/1": "a/1"}
        new = result({"a/1": 1.0, "a/2": 3.0})
        assert summary([old, new], M).patients == 1, "another file of the same cases says whose they are"


class TestDifference:
    def test_is_paired_by_case_and_averaged_over_seeds(self) -> None:
        ours = [result({"a": 21, "b": 25}), result({"a": 23, "b": 27})]
        theirs = [result({"b": 22, "a": 20})]
        told = difference(ours, theirs, M)
        assert told.mean == pytest.approx(((22 - 20) + (26 - 22)) / 2)
        assert (told.low, told.high) == (2, 4)
        assert (told.p, told.patients, told.cases, told.left_out) == (0.5, 2, 2, 0)
        back = difference(theirs, ours, M)
        assert (back.mean, back.low, back.high, back.p) == (-told.mean, -told.high, -told.low, told.p)

    def test_is_of_the_cases_that_every_seed_of_both_has(self) -> None:
        ours = [result({"a": 21, "b": 25, "c": 9}), result({"a": 21, "b": 25})]
        theirs = [result({"a": 20, "b": 20, "d": 1})]
        told = difference(ours, theirs, M)
        assert (told.mean, told.cases, told.left_out) == (3, 2, 2)

    def test_scans_of_a_patient_count_once_in_the_test(self) -> None:
        ours = {f"{p}/{scan}": 10.0 + i for i, p in enumerate("abcde") for scan in range(4)}
        told = difference([result(ours)], [result(dict.fromkeys(ours, 9.0))], M)
        assert (told.patients, told.cases) == (5, 20)
        assert told.p == pytest.approx(2 / 2**5), "the least that five patients can give"

    def test_flawless_volumes_and_no_case_in_common(self) -> None:
        told = difference([result({"a": math.inf, "b": 3})], [result({"a": math.inf, "b": 2})], M)
        assert told.mean == 0.5
        none = difference([result({"a": 1})], [result({"b": 1})], M)
        assert none.patients == 0 and math.isnan(none.p) and math.isnan(none.mean)
        alone = difference([result({"a": 1})], [], M)
        assert (alone.cases, alone.left_out) == (0, 1)


class TestSignedRank:
    def test_counted_by_hand(self) -> None:
        """Ranks 1 2 3 4, the third negative: of 16 signs five give a negative sum of at most 3."""
        assert signed_rank([1, 2, -3, 4]) == pytest.approx(2 * 5 / 16)

    def test_all_on_one_side(self) -> None:
        assert signed_rank([0.1 * i for i in range(1, 11)]) == pytest.approx(2 / 2**10)

    def test_no_difference_is_no_evidence(self) -> None:
        assert signed_rank([0.0, 0.0]) == 1
        assert math.isnan(signed_rank([]))


class TestHolm:
    def test_by_its_definition(self) -> None:
        """Sorted .005 .01 .03 .04 times 4 3 2 1 is .02 .03 .06 .04, and .04 may not be below .06."""
        assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])

    def test_never_above_one_and_one_test_stays(self) -> None:
        assert holm([0.5, 0.6, 0.9]) == [1, 1, 1]
        assert holm([0.04]) == [0.04]
        assert holm([]) == []

    def test_what_was_not_tested_is_not_counted(self) -> None:
        adjusted = holm([0.02, math.nan, 0.01])
        assert adjusted[0] == adjusted[2] == 0.02 and math.isnan(adjusted[1])
