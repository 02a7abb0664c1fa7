"""Each table of made-up runs: who stands in it, beside what, with which figures."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from made_study import made_run, put

from xr2ct.reporting import paper
from xr2ct.reporting.exhibit import maker
from xr2ct.reporting.paper import TABLES
from xr2ct.reporting.study import Study
from xr2ct.reporting.table import Table

VAL, TEST, OUT = ("lidc-idri", "val"), ("lidc-idri", "test"), ("lctsc", "test")
BASE = {f"p{i}": 20.0 + i for i in range(6)}
GAN = {"method": {"name": "gan"}, "mapper": {"name": "x2ct-gan"}}
REGRESSION = {"method": {"name": "regression", "loss": "mse"}}
OBLIQUE = {"views": [45, 135, 225, 315]}

Row = Mapping[str, Any]


def better(decibels: float) -> dict[str, float]:
    """By a little more with each patient, so that differences have ranks."""
    return {case: psnr + decibels + 0.01 * i for i, (case, psnr) in enumerate(BASE.items())}


def everywhere(decibels: float) -> dict[tuple[str, str], dict[str, float]]:
    return dict.fromkeys((VAL, TEST, OUT), better(decibels))


@cache
def table(name: str, study: Study) -> Table:
    made = maker(name)(study)
    assert isinstance(made, Table) and made.name == name
    return made


def rows(name: str, study: Study, **where: Any) -> list[Row]:
    """Rows of a table with these cells."""
    found = table(name, study).rows
    return [row for row in found if all(row.get(key) == value for key, value in where.items())]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Study:
    """Ours with two seeds, X2CT-GAN, plain regression, one view; a prior, the truth, and others' volumes."""
    folder = tmp_path_factory.mktemp("runs")
    runs = [
        made_run(folder / "ours-0", everywhere(3.0), label="ours"),
        made_run(folder / "ours-1", everywhere(3.5), label="ours", seed=1),
        made_run(folder / "gan", everywhere(1.0), label="GAN", **GAN),
        made_run(folder / "mse", everywhere(2.0), label="MSE", **REGRESSION),
        made_run(folder / "one", everywhere(0.5), label="one view", data={"views": [90]}),
    ]
    put(runs[0], "step-000250", *VAL, better(-5))
    for run in runs:
        for pair in (VAL, TEST, OUT):
            put(run, "prior-mean", *pair, BASE)
            put(run, "truth", *pair, dict.fromkeys(BASE, 50.0))
    put(runs[0], "theirs", *TEST, {case: psnr for case, psnr in better(2.5).items() if case != "p5"})
    return Study.of(runs)


NAMES = (
    *("cohorts", "modes", "detail", "seeds", "comparisons", "missing", "checkpoints"),
    *("paper-table1", "paper-table2"),
)


@pytest.mark.parametrize("name", NAMES)
def test_predictions_from_elsewhere_stand_in_every_table(study: Study, name: str) -> None:
    cells = {str(row.get(key)) for row in table(name, study).rows for key in ("system", "first", "second")}
    assert "theirs" in cells


@pytest.mark.parametrize("name", NAMES)
def test_every_form_is_whole_and_made_again_from_the_source(study: Study, name: str) -> None:
    made = table(name, study)
    values, arrays = made.source()
    files = made.files()
    assert Table.from_source(json.loads(json.dumps(values, allow_nan=False)), arrays).files() == files
    assert len(list(csv.DictReader(io.StringIO(files["csv"].decode())))) == len(made.rows)
    tex = files["tex"].decode()
    assert tex.isascii(), "LaTeX has no glyph for it unescaped"
    body = tex.split(r"\hline")[2]
    assert {line.count(" & ") for line in body.strip().splitlines()} == {len(made.columns) - 1}
    bars = {line.count("|") for line in files["md"].decode().splitlines() if line.startswith("|")}
    assert bars == {len(made.columns) + 1}


class TestCohorts:
    def test_seeds_are_one_row_with_their_spread_apart(self, study: Study) -> None:
        (row,) = rows("cohorts", study, system="ours", cohort="lctsc")
        assert row["psnr"] == pytest.approx(22.5 + 3.25 + 0.025)
        assert row["spread"] == pytest.approx(0.125**0.5)
        assert (row["seeds"], row["patients"]) == (2, 6)
        low, high = map(float, str(row["interval"]).split(" to "))
        assert low < row["psnr"] < high and high - low > 2, "as patients differ, not as seeds do"

    def test_each_cohort_has_trained_systems_then_others(self, study: Study) -> None:
        found = [row["system"] for row in rows("cohorts", study, cohort="lidc-idri", split="test")]
        assert found[:4] == ["ours", "GAN", "MSE", "one view"]
        assert found[4:6] == ["theirs", "mean chest (prior)"]
        assert all(str(label).startswith("the truth itself") for label in found[6:])

    def test_scans_are_counted_where_a_patient_has_several(self, tmp_path: Path) -> None:
        run = made_run(tmp_path / "run", {TEST: {"a/1": 20, "a/2": 22, "b/1": 24}})
        made = table("cohorts", Study.of([run]))
        assert "scans" in [column.key for column in made.columns]
        assert (made.rows[0]["patients"], made.rows[0]["scans"]) == (2, 3)

    def test_the_size_is_told_where_there_are_several(self, study: Study, tmp_path: Path) -> None:
        runs = [made_run(tmp_path / str(n), {TEST: BASE}, data={"size": n}) for n in (64, 128)]
        for name in ("cohorts", "modes", "paper-table2"):
            made = table(name, Study.of(runs))
            assert "size" in [column.key for column in made.columns]
            assert {row.get("size") for row in made.rows} - {None} == {"64³", "128³"}
            assert "size" not in [column.key for column in table(name, study).columns]


def test_detail_tells_sharpness_and_truth_of_all_but_the_truth(study: Study) -> None:
    (row,) = rows("detail", study, system="GAN", cohort="lctsc")
    keys = ("sharpness", "lsd_db", "fsc", "resolution_mm", "gmsd")
    assert [row[key] for key in keys] == pytest.approx([row["psnr"] / 50] * 5)
    assert not rows("detail", study, kind="truth")


def test_modes_holds_every_definition(study: Study) -> None:
    (row,) = rows("modes", study, system="MSE", cohort="lctsc")
    assert row["rc2024/psnr"] == pytest.approx(row["honest/psnr"] + 6.2245)
    modes = {column.key.split("/")[0] for column in table("modes", study).columns if "/" in column.key}
    assert modes == {"honest", "honest_body", "honest_lungs", "rc2024", "x2ct_3d", "x2ct_slice", "psct"}


def test_checkpoints_are_by_seed_and_step(study: Study) -> None:
    found = rows("checkpoints", study, system="ours")
    assert [(row["seed"], row["step"]) for row in found] == [(0, 250), (0, 500), (1, 500)]
    assert [row["lidc-idri-val"] for row in found] == pytest.approx([17.525, 25.525, 26.025])
    assert found[0].get("lctsc-test") is None and found[0]["kind"] is None and found[1]["kind"] == "ours"


class TestSeeds:
    def test_both_kinds_of_chance_side_by_side(self, study: Study) -> None:
        (row,) = rows("seeds", study, system="ours", cohort="lctsc")
        assert (row["lowest"], row["highest"]) == pytest.approx((25.525, 26.025))
        (alone,) = rows("seeds", study, system="MSE", cohort="lctsc")
        assert alone["spread"] is None and alone["lowest"] is None and alone["half"] > 0

    def test_none_where_nobody_has_two(self, tmp_path: Path) -> None:
        assert maker("seeds")(Study.of([made_run(tmp_path / "run", {TEST: BASE})])) is None


class TestComparisons:
    def test_difference_p_and_holm(self, study: Study) -> None:
        (row,) = rows("comparisons", study, first="ours", second="GAN", cohort="lctsc")
        assert row["difference"] == pytest.approx(2.25)
        assert row["p"] == pytest.approx(2 / 2**6), "six patients, all on one side"
        count = len(rows("comparisons", study))
        assert row["holm"] == pytest.approx(min(1.0, count * 2 / 2**6))
        assert f"all {count} comparisons" in table("comparisons", study).caption

    def test_common_cases_alone(self, study: Study) -> None:
        (row,) = rows("comparisons", study, first="ours", second="theirs")
        assert (row["cohort"], row["patients"], row["left_out"]) == ("lidc-idri", 5, 1)

    def test_priors_are_compared_with_and_not_with_one_another(self, study: Study) -> None:
        firsts = {row["first"] for row in rows("comparisons", study)}
        assert "mean chest (prior)" not in firsts
        assert rows("comparisons", study, second="mean chest (prior)", first="one view")

    def test_only_the_same_volumes_on_the_same_scale(self, tmp_path: Path) -> None:
        small = [made_run(tmp_path / name, {TEST: BASE}, name=name) for name in ("a", "b")]
        large = made_run(tmp_path / "c", {TEST: BASE}, name="c", data={"size": 128})
        (row,) = rows("comparisons", Study.of([*small, large]))
        assert (row["first"], row["second"], row["p"]) == ("a", "b", 1)
        assert maker("comparisons")(Study.of([small[0], large])) is None

    def test_of_very_many_each_is_compared_with_the_first(self, tmp_path: Path) -> None:
        runs = [made_run(tmp_path / str(i), {TEST: BASE}, name=f"s{i}") for i in range(13)]
        assert len(rows("comparisons", Study.of(runs[:12]))) == 66
        made = table("comparisons", Study.of(runs))
        assert {row["first"] for row in made.rows} == {"s0"} and len(made.rows) == 12
        assert "with the first alone" in made.caption


class TestMissing:
    def test_cases_by_name_and_cohorts_not_scored(self, study: Study) -> None:
        told = [(r["cohort"], r["split"], r["system"], r.get("cases")) for r in rows("missing", study)]
        assert told == [("lctsc", "test", "theirs", "not scored"), ("lidc-idri", "test", "theirs", "p5")]

    def test_a_cohort_that_nobody_is_scored_on(self, tmp_path: Path) -> None:
        run = made_run(tmp_path / "run", {TEST: BASE, VAL: BASE}, evaluation={"cohorts": ["spie-aapm"]})
        (row,) = rows("missing", Study.of([run]))
        assert (row["cohort"], row["system"], row["cases"]) == ("spie-aapm", "everyone", "not scored")

    def test_a_seed_that_lacks_a_case(self, tmp_path: Path) -> None:
        runs = [made_run(tmp_path / "0", everywhere(1)), made_run(tmp_path / "1", everywhere(1), seed=1)]
        put(runs[1], "step-000500", *OUT, {"p0": 20, "p1": 20})
        (row,) = rows("missing", Study.of(runs))
        assert (row["run"], row["count"], row["cases"]) == ("1", 4, "p2, p3, p4, p5")

    def test_a_seed_that_lacks_a_cohort(self, tmp_path: Path) -> None:
        runs = [
            made_run(tmp_path / "0", everywhere(1)),
            made_run(tmp_path / "1", {VAL: BASE, TEST: BASE}, seed=1),
        ]
        (row,) = rows("missing", Study.of(runs))
        assert (row["cohort"], row["run"], row["cases"]) == ("lctsc", "1", "not scored")

    def test_that_nothing_is_missing_is_said(self, tmp_path: Path) -> None:
        made = table("missing", Study.of([made_run(tmp_path / "run", everywhere(1))]))
        assert made.rows == [] and made.caption.startswith("Nothing is missing")


class TestPaper:
    def test_ours_stands_before_the_printed_row_it_is_to_be_like(self, study: Study) -> None:
        found = [(r["system"], r["views"]) for r in rows("paper-table2", study, cohort="lidc-idri")]
        assert found == [
            ("GAN", 2),
            ("X2CT-GAN, as printed", 2),
            ("CCX-rayNet", 2),
            ("CCX-rayNet, as printed", 2),
            ("ours", 2),
            ("repeat and concatenate, as printed", 2),
            ("MSE", 2),
            ("one view", 1),
            ("theirs", 2),
            ("mean chest (prior)", None),
        ]
        (absent,) = rows("paper-table2", study, cohort="lidc-idri", system="CCX-rayNet")
        assert absent["remark"] == "not measured" and "psnr" not in absent

    def test_each_row_is_under_its_own_definition(self, study: Study) -> None:
        (ours,) = rows("paper-table2", study, cohort="lctsc", system="ours")
        assert ours["definition"] == "rc2024, HU window"
        assert ours["psnr"] == pytest.approx(22.5 + 3.25 + 0.025 + 6.2245)
        (printed,) = rows("paper-table2", study, cohort="lctsc", system="X2CT-GAN, as printed")
        assert (printed["definition"], printed["psnr"], printed["kind"]) == ("rc2024, min–max", 19.2, "paper")
        assert "are no comparison" in table("paper-table2", study).caption

    def test_printed_rows_far_below_a_rerun_say_so(self, study: Study) -> None:
        told = [r for r in rows("paper-table2", study) if "as printed" in str(r["system"])]
        low = [r for r in told if "far below" in str(r["remark"])]
        assert len(low) == 14 and not any("repeat" in str(r["system"]) for r in low)

    def test_table1_is_by_number_of_views(self, study: Study) -> None:
        found = [(r["system"], r["views"]) for r in rows("paper-table1", study, cohort="lidc-idri")][:6]
        assert found == [
            ("one view and noise", 1),
            ("one view and noise, as printed", 1),
            ("one view", 1),
            ("repeat and concatenate, as printed", 1),
            ("ours", 2),
            ("repeat and concatenate, as printed", 2),
        ]
        assert {r["cohort"] for r in rows("paper-table1", study)} == {"lidc-idri", "midrc-ricord-1b"}

    def test_none_where_no_system_is_of_the_table(self, study: Study) -> None:
        assert maker("paper-fig3")(study) is None and maker("paper-fig6")(study) is None

    @pytest.mark.parametrize(
        ("name", "config", "like"),
        [
            ("paper-table1", {"lift": "noise", "data": {"views": [90]}}, "one view and noise"),
            ("paper-table2", {"method": {"name": "gan"}, "mapper": {"name": "ccx-raynet"}}, "CCX-rayNet"),
            ("paper-fig3", {"mapper": {"name": "autoencoder"}}, "2D-3D AE"),
            ("paper-fig3", {"mapper": {"name": "autoencoder", "l2_normalise": True}}, "2D-3D AE + L2 norm."),
            ("paper-fig3", {"mapper": {"name": "unet"}}, "3D-3D U-Net"),
            ("paper-fig6", {"data": OBLIQUE}, "no alignment"),
            ("paper-fig6", {"data": OBLIQUE, "lift": "rotate"}, "coarse alignment"),
        ],
    )
    def test_matched_by_what_it_is_not_by_its_name(
        self, tmp_path: Path, name: str, config: dict[str, Any], like: str
    ) -> None:
        run = made_run(tmp_path / "run", {TEST: BASE}, label="anything", **config)
        names = [str(r["system"]) for r in rows(name, Study.of([run]), cohort="lidc-idri")]
        assert names[names.index("anything") + 1] == f"{like}, as printed"
        assert like not in names, "it is measured"

    @pytest.mark.parametrize(
        "config",
        [
            {"data": OBLIQUE, "lift": "backproject"},
            {"data": {"views": [45, 135]}},
            {"method": {"name": "regression"}},
            {"mapper": {"name": "segresnet"}},
        ],
    )
    def test_what_the_paper_has_not_is_no_row_of_its(self, tmp_path: Path, config: dict[str, Any]) -> None:
        experiment = made_run(tmp_path / "run", **config).experiment()
        printed = {told.name: {(p.method, p.views) for p in told.rows} for told in TABLES}
        assert all(told.place(experiment) not in printed[told.name] for told in TABLES)

    def test_figure_3_is_on_no_known_scale(self, tmp_path: Path) -> None:
        made = table(
            "paper-fig3",
            Study.of([made_run(tmp_path / "run", {TEST: BASE}, mapper={"name": "unet"})]),
        )
        printed = [row for row in made.rows if row.get("kind") == "paper"]
        assert [row["mse"] for row in printed] == [995.2582, 197.2649, 58.7546]
        assert {row["definition"] for row in printed} == {"not stated"}
        peaks = [10 ** (p.psnr / 10) * p.mse for p in paper.FIG3]
        assert peaks[0] == pytest.approx(peaks[1], rel=1e-3) and peaks[2] > 3 * peaks[0]

    def test_min_max_scaling_is_said_of_both(self, tmp_path: Path) -> None:
        run = made_run(tmp_path / "run", {TEST: BASE}, data={"scaling": "minmax"})
        made = table("paper-table2", Study.of([run]))
        assert {row["definition"] for row in made.rows if row.get("psnr")} == {"rc2024, min–max"}
        assert "min–max scaling too" in made.caption


class TestDataEfficiency:
    def test_difference_to_the_most_cases_of_the_same_system(self, tmp_path: Path) -> None:
        runs = [
            made_run(tmp_path / "50", {TEST: better(1)}, label="few", data={"train_cases": 50}),
            made_run(tmp_path / "all", {TEST: better(3)}, label="all"),
            made_run(tmp_path / "gan", {TEST: better(2)}, label="GAN", **GAN, data={"train_cases": 50}),
        ]
        found = {row["system"]: row for row in rows("data-efficiency", Study.of(runs))}
        assert [row["train_cases"] for row in found.values()] == [50, "all", 50]
        assert found["few"]["difference"] == pytest.approx(-2)
        assert found["all"].get("difference") is None and found["GAN"].get("difference") is None

    def test_none_with_one_size(self, study: Study) -> None:
        assert maker("data-efficiency")(study) is None


class TestOptimalTransport:
    def test_settings_with_defaults_beside_plain_regression(self, tmp_path: Path) -> None:
        methods: list[tuple[str, dict[str, Any]]] = [
            ("default", {"name": "neural-ot"}),
            ("blur", {"name": "neural-ot", "blur": 4}),
            ("spread", {"name": "neural-ot", "blur_of_spread": 0.5}),
            ("MSE", {"name": "regression", "loss": "mse"}),
        ]
        runs = [made_run(tmp_path / n, {TEST: BASE}, name=n, method=m) for n, m in methods]
        found = {row["system"]: row for row in rows("ot", Study.of(runs))}
        assert [found[n].get("method.blur") for n, _ in methods] == [0.05, 4, None, None]
        assert found["spread"]["method.blur_of_spread"] == 0.5
        assert found["default"]["method.mapper_updates"] == 10
        assert (found["MSE"]["objective"], found["MSE"]["training.batch"]) == ("regression, mse", 8)

    def test_none_where_all_are_alike(self, study: Study) -> None:
        assert maker("ot")(study) is None
