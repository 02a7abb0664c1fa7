"""What the commands leave behind, and that doing them again does nothing twice."""

from __future__ import annotations

import csv
import json
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from commands import WholeWay, xr2ct

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def test_training_wrote_each_step_once_with_finite_losses(whole_way: WholeWay) -> None:
    steps = [json.loads(line) for line in (whole_way.run / "metrics.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps] == [1, 2, 3]
    losses = {key for s in steps for key in s if key.startswith("loss/")}
    assert {"loss/mapper", "loss/transport", "loss/potential"} <= losses
    assert all(math.isfinite(s[key]) for s in steps for key in losses)


def test_every_checkpoint_is_scored_on_every_cohort_beside_the_priors(whole_way: WholeWay) -> None:
    with (whole_way.run / "evaluations" / "leaderboard.csv").open() as file:
        rows = list(csv.DictReader(file))
    sources = {"0", "2", "3", "prior-mean", "prior-nearest", "truth"}
    cohorts = {("lidc-idri", "val"), ("lidc-idri", "test"), ("lctsc", "test")}
    assert {(r["step"], r["cohort"], r["split"]) for r in rows} == {
        (source, *cohort) for source in sources for cohort in cohorts
    }
    validation = {
        int(r["step"]): float(r["honest/psnr"]) for r in rows if r["split"] == "val" and r["step"].isdigit()
    }
    best = max(validation, key=lambda step: (validation[step], -step))
    assert (whole_way.run / "best").resolve().name == f"step-{best:06d}"


def test_the_same_commands_again_do_nothing_twice(whole_way: WholeWay) -> None:
    kept = [
        *whole_way.run.rglob("*.csv"),
        *whole_way.run.rglob("*.safetensors"),
        whole_way.run / "metrics.jsonl",
    ]
    before = {p: p.read_bytes() for p in kept}
    scored = {p: p.stat().st_mtime_ns for p in kept if re.search(r"-(val|test)\.csv$", p.name)}
    xr2ct("submit", whole_way.config, "--cluster", "local", "--wait")
    xr2ct("evaluate", whole_way.run)
    assert {p: p.read_bytes() for p in kept} == before
    assert {p: p.stat().st_mtime_ns for p in scored} == scored


def test_a_run_is_not_started_again_with_other_values(whole_way: WholeWay) -> None:
    other = whole_way.config.with_name("other.yaml")
    other.write_text(whole_way.config.read_text().replace("lr_per_sample: 1e-3", "lr_per_sample: 2e-3"))
    assert "optimizer.lr_per_sample: 0.001 → 0.002" in xr2ct("train", other, code=2).stderr


def test_what_the_tracker_was_told_is_what_the_run_holds(whole_way: WholeWay) -> None:
    first, second = (xr2ct("track", "sync", whole_way.run).stdout for _ in range(2))
    assert first and second
    from mlflow.tracking import MlflowClient

    client = MlflowClient(f"sqlite:///{whole_way.run.parent / 'mlflow.db'}")
    run_id = json.loads((whole_way.run / "mlflow.json").read_text())["run_id"]
    history = client.get_metric_history(run_id, "loss/mapper")
    losses = [
        json.loads(line)["loss/mapper"] for line in (whole_way.run / "metrics.jsonl").read_text().splitlines()
    ]
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == list(enumerate(losses, 1))


class _References(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.sources: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_page_holds_everything_inside_it(whole_way: WholeWay) -> None:
    page = _References()
    page.feed(whole_way.page.read_text())
    assert all(s.startswith(("data:", "#")) for s in page.sources)
    assert "script" not in page.tags and {"table", "svg", "img"} <= page.tags


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_the_page_opens_in_a_browser_from_a_file(whole_way: WholeWay, tmp_path: Path) -> None:
    shot = tmp_path / "page.png"
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--disable-sync",
    ]
    command = [
        "chromium",
        *flags,
        f"--user-data-dir={tmp_path}",
        "--window-size=1200,2000",
        f"--screenshot={shot}",
    ]
    subprocess.run([*command, whole_way.page.as_uri()], check=True, capture_output=True, timeout=120)
    from matplotlib.image import imread

    picture = imread(shot)
    assert picture.shape[:2] == (2000, 1200) and picture[..., :3].std() > 0.05


@pytest.mark.parametrize("name", ["cohorts", "paper-table1", "paper-table2", "modes", "checkpoints"])
def test_each_table_comes_in_three_forms(whole_way: WholeWay, name: str) -> None:
    for suffix in ("md", "csv", "tex"):
        assert (whole_way.page.parent / f"{name}.{suffix}").stat().st_size > 0


def test_printed_figures_stand_beside_ours_under_their_mode(whole_way: WholeWay) -> None:
    text = (whole_way.page.parent / "paper-table2.md").read_text()
    assert re.search(r"lidc-idri +\| repeat and concatenate, as printed +\| 2 +\| 0.527 \| 24.35", text)
    assert re.search(r"lctsc +\| small, step \d", text)
    assert "rc2024" in text and "no comparison" in text
