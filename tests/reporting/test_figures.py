"""Figures over an axis: what stands on one line, what it is called, and what is left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from made_study import made_run

from xr2ct.reporting.chart import Chart, Panel
from xr2ct.reporting.exhibit import maker
from xr2ct.reporting.study import Study

OTHER = "midrc-ricord-1b"
VIEWS = {1: [90], 2: [90, 0], 4: [90, 0, 270, 180]}


def run(tmp_path: Path, name: str, psnr: float, **config: Any) -> Any:
    scores = {("lidc-idri", "test"): {"a": psnr, "b": psnr + 1}, (OTHER, "test"): {"c": psnr - 3}}
    return made_run(tmp_path / name, scores, name=name, **config)


def chart(name: str, *runs: Any) -> Chart:
    made = maker(name)(Study.of(runs))
    assert isinstance(made, Chart)
    return made


def points(panel: Panel) -> dict[str, dict[float, float]]:
    return {s.label: dict(zip(s.x, s.y, strict=True)) for s in panel.series}


def test_views_of_one_system_are_a_line_for_each_cohort(tmp_path: Path) -> None:
    runs = [run(tmp_path, f"v{n}", 20 + n, data={"views": v}, label=f"{n} views") for n, v in VIEWS.items()]
    psnr, ssim = chart("views", *reversed(runs)).panels
    assert (psnr.ylabel, ssim.ylabel) == ("honest PSNR, dB", "honest SSIM")
    assert points(psnr) == {
        "lidc-idri": {1: 21.5, 2: 22.5, 4: 24.5},
        OTHER: {1: 18, 2: 19, 4: 21},
    }
    assert psnr.ticks == (1, 2, 4) and psnr.log_x


def test_views_of_several_systems_have_a_panel_for_each_cohort(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, f"{lift}{n}", 20 + n, data={"views": VIEWS[n]}, lift=lift, label=lift)
        for lift in ("repeat", "backproject")
        for n in (1, 2)
    ]
    panels = chart("views", *runs).panels
    assert [p.title for p in panels] == ["lidc-idri", OTHER, "lidc-idri", OTHER]
    assert points(panels[1]) == {"repeat": {1: 18, 2: 19}, "backproject": {1: 18, 2: 19}}


def test_one_number_of_views_is_no_figure(tmp_path: Path) -> None:
    study = Study.of([run(tmp_path, "a", 20.0, data={"views": [90]})])
    assert maker("views")(study) is None and maker("paper-fig7")(study) is None


def test_fig7_marks_lifts_as_the_paper_does_and_pales_elsewhere(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, f"{lift}{n}", 20 + n, data={"views": VIEWS[n]}, lift=lift, label=f"{lift} {n}")
        for lift in ("repeat", "rotate", "backproject")
        for n in (2, 4)
    ]
    made = chart("paper-fig7", *runs)
    assert [p.ylabel for p in made.panels] == [
        "honest PSNR, dB", "honest SSIM", "rc2024 PSNR, dB", "rc2024 SSIM",
    ]  # fmt: skip
    series = {s.label: s for s in made.panels[0].series}
    assert {label: s.marker for label, s in series.items() if not s.light} == {
        "transposition only": "*", "coarse alignment": "^", "along each ray": "s",
    }  # fmt: skip
    pale = series[f"coarse alignment, {OTHER}"]
    assert pale.light and pale.tone == "coarse alignment" and pale.y == (19, 21)
    assert points(made.panels[2])["transposition only"][2] == pytest.approx(22.5 + 6.2245)
    assert OTHER in made.caption and "without numbers" in made.caption


def test_data_efficiency_has_the_seeds_spread(tmp_path: Path) -> None:
    runs = [
        run(tmp_path, f"n{n}s{seed}", n / 10 + 2 * seed, data={"train_cases": n}, seed=seed, label="ours")
        for n in (50, 100)
        for seed in (0, 1)
    ]
    series = chart("data-efficiency-curve", *runs).panels[0].series[0]
    assert (series.x, series.y) == ((50, 100), (6.5, 11.5))
    spread = 2**0.5  # of two means that are 2 apart
    assert series.high == pytest.approx((6.5 + spread, 11.5 + spread))


def test_all_cases_of_a_store_that_is_gone_are_left_out_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = {"stores": str(tmp_path / "gone")}
    runs = [run(tmp_path, f"n{n}", 20.0, data={**data, "train_cases": n}) for n in (50, 100, None)]
    assert chart("data-efficiency-curve", *runs).panels[0].series[0].x == (50, 100)
    assert "left out of the curve over training cases" in caplog.text


def test_ot_shows_one_key_at_a_time_with_what_goes_with_it(tmp_path: Path) -> None:
    def ot(name: str, psnr: float, lr: float = 1e-5, batch: int = 8, **method: Any) -> Any:
        keys = {"method": {"name": "neural-ot", **method}, "training": {"batch": batch}}
        return run(tmp_path, name, psnr, optimizer={"lr_per_sample": lr}, label=name, **keys)

    made = chart(
        "ot-curve",
        ot("paper", 20.0),
        ot("blur-5", 21.0, blur=5),
        ot("batch-16", 22.0, batch=16, lr=5e-6),
        ot("of-spread", 23.0, blur_of_spread=1.0),  # alone on its axis: no panel
        run(tmp_path, "plain", 19.0, method={"name": "regression"}, label="regression"),
    )
    blur, batch = made.panels
    assert (blur.xlabel, batch.xlabel) == ("blur, units of features", "batch that OT sees")
    assert points(blur) == {
        "neural OT": {0.05: 20.5, 5: 21.5},
        f"neural OT, {OTHER}": {0.05: 17, 5: 18},
    }
    assert points(batch)["neural OT"] == {8: 20.5, 16: 22.5}
    assert blur.levels == batch.levels == {"regression": 19.5}
