"""What the commands leave behind, that doing them again does nothing twice, and X-rays made a volume.

One file, so that several workers make the whole way's run once.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from commands import WholeWay, xr2ct

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

REFUSED = ("deepspeed", "nvidia", "geomloss", "submitit", "mlflow", "zarr", "matplotlib", "psutil")


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
    assert "script" not in page.tags and {"table", "svg", "image"} <= page.tags


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


@pytest.mark.parametrize("name", ["projections", "planes"])
def test_each_figure_comes_in_three_forms(whole_way: WholeWay, name: str) -> None:
    for suffix in ("pdf", "svg", "csv"):
        assert (whole_way.page.parent / f"{name}.{suffix}").stat().st_size > 0


def test_tables_and_figures_are_drawn_again_from_their_locks(whole_way: WholeWay, tmp_path: Path) -> None:
    """With the folder alone: no run, no store."""
    report = Path(shutil.copytree(whole_way.page.parent, tmp_path / "kept"))
    locks = sorted(report.glob("*.lock.json"))
    done = xr2ct("report", "--from", *locks, "--out", tmp_path / "again")
    drawn = sorted((tmp_path / "again").iterdir())
    assert len(drawn) == 3 * len(locks) == len(done.stdout.splitlines())
    assert all(file.read_bytes() == (report / file.name).read_bytes() for file in drawn)


def test_printed_figures_stand_beside_ours_under_their_mode(whole_way: WholeWay) -> None:
    text = (whole_way.page.parent / "paper-table2.md").read_text()
    assert re.search(
        r"lidc-idri +\| repeat and concatenate, as printed +\| +2 \|.*\| 0\.527 \| +24\.35 ", text
    )
    assert re.search(r"lctsc +\| small +\| +2 ", text)
    assert "rc2024" in text and "no comparison" in text


@pytest.fixture(scope="module")
def xrays(whole_way: WholeWay) -> Path:
    """Line integrals of one test patient at 0, 90 and 270°."""
    store = whole_way.work / "stores" / "lctsc.zarr"
    case = json.loads(xr2ct("inspect", store, "--json").stdout)["splits"]["test"][0]
    out = whole_way.work / "xrays"
    xr2ct("project", store, "--case", case, "--angles", "0,90,270", "--out", out)
    return out / case


def views(xrays: Path, suffix: str = "mha") -> list[str]:
    return ["--view", f"RLAT={xrays}/angle_090.{suffix}", "--view", f"0={xrays}/angle_000.{suffix}"]


def test_the_volume_lies_where_the_patient_did(whole_way: WholeWay, xrays: Path, tmp_path: Path) -> None:
    for name in ("v.mha", "v.nii.gz", "v.npy"):
        xr2ct("reconstruct", whole_way.run / "best", *views(xrays), "--out", tmp_path / name)
    image = sitk.ReadImage(str(tmp_path / "v.mha"))
    assert image.GetSize() == (64, 64, 64) and image.GetSpacing() == (5.0, 5.0, 5.0)
    assert image.GetOrigin() == (-157.5, -157.5, -157.5)
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    hu = sitk.GetArrayFromImage(image)
    assert hu.min() >= -1024 and hu.max() <= 1476 and hu.std() > 0
    nifti = sitk.ReadImage(str(tmp_path / "v.nii.gz"))
    assert np.allclose(nifti.GetOrigin(), image.GetOrigin())
    assert np.array_equal(sitk.GetArrayFromImage(nifti), hu)
    assert np.array_equal(np.load(tmp_path / "v.npy"), hu)


def test_it_is_what_the_evaluation_scored(whole_way: WholeWay, xrays: Path, tmp_path: Path) -> None:
    """The volume from files scores like the case from the store, but for rounding to whole HU."""
    best = (whole_way.run / "best").resolve().name
    with (whole_way.run / "evaluations" / best / "lctsc-test.csv").open() as file:
        scored = next(csv.DictReader(file))
    xr2ct("reconstruct", whole_way.run / "best", *views(xrays), "--out", tmp_path / "v.mha")
    from xr2ct.exchange.volumes import write_volume
    from xr2ct.store import Store

    store = Store.open(whole_way.work / "stores" / "lctsc.zarr")
    write_volume(store.volume(store.cases[0], 64), store.cube_mm, tmp_path / "truth.mha", {})
    told = json.loads(xr2ct("score", tmp_path / "v.mha", tmp_path / "truth.mha").stdout)
    assert told["honest"]["psnr"] == pytest.approx(float(scored["honest/psnr"]), abs=0.01)


def test_a_picture_with_its_scale_gives_the_same_volume(
    whole_way: WholeWay, xrays: Path, tmp_path: Path
) -> None:
    checkpoint = whole_way.run / "best"
    xr2ct("reconstruct", checkpoint, *views(xrays), "--out", tmp_path / "a.npy")
    xr2ct("reconstruct", checkpoint, *views(xrays, "png"), "--png-scale", "7", "--out", tmp_path / "b.npy")
    a, b = np.load(tmp_path / "a.npy"), np.load(tmp_path / "b.npy")
    assert np.abs(a - b).max() <= 5  # each view is divided by its own maximum: the scale itself cancels


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--view", "90={x}/angle_090.mha"], "trained for 90°, 0°, got 90°"),
        (
            ["--view", "90={x}/angle_090.mha", "--view", "270={x}/angle_270.mha"],
            "trained for 90°, 0°, got 90°, 270°",
        ),
        (["--view", "90={x}/angle_090.mha", "--view", "RLAT={x}/angle_090.mha"], "given twice"),
        (
            ["--view", "90={x}/angle_090.mha", "--view", "0={x}/angle_270.mha"],
            "is the view at 270°, given as 0°",
        ),
        (["--view", "90={x}/angle_090.mha", "--view", "0={x}/nothing.mha"], "nothing.mha"),
        (["--view", "90={x}/angle_090.mha", "--view", "0"], "expected ANGLE=FILE"),
        (["--view", "90={x}/angle_090.png", "--view", "0={x}/angle_000.png"], "needs its scale"),
        (
            ["--view", "90={x}/angle_090.mha", "--view", "0={x}/small.npy"],
            "expected 256×256 pixels, got 64×64",
        ),
        (
            ["--view", "90={x}/angle_090.mha", "--view", "0={x}/angle_000.mha", "--geometry", "chest-1800"],
            "trained with sad_mm 541",
        ),
    ],
)
def test_what_does_not_fit_is_one_clear_line(
    whole_way: WholeWay, xrays: Path, tmp_path: Path, arguments: list[str], told: str
) -> None:
    np.save(xrays / "small.npy", np.ones((64, 64), np.float32))
    filled = [a.format(x=xrays) for a in arguments]
    done = xr2ct("reconstruct", whole_way.run / "best", *filled, "--out", tmp_path / "v.mha", code=2)
    assert told in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not (tmp_path / "v.mha").exists()


def test_a_run_in_place_of_a_checkpoint_names_the_right_one(
    whole_way: WholeWay, xrays: Path, tmp_path: Path
) -> None:
    done = xr2ct("reconstruct", whole_way.run, *views(xrays), "--out", tmp_path / "v.mha", code=2)
    assert f"{whole_way.run}/best" in done.stderr


def test_it_needs_nothing_of_training(whole_way: WholeWay, xrays: Path, tmp_path: Path) -> None:
    """With every package refused that [infer] does not bring."""
    out = tmp_path / "v.mha"
    code = f"""
import sys
for name in {REFUSED}:
    sys.modules[name] = None
from xr2ct.cli import main
told = ["--memory-gb", "4", "--out", {str(out)!r}]
sys.exit(main(["reconstruct", {str(whole_way.run / "best")!r}, *{views(xrays)!r}, *told]))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert out.exists()


def test_a_model_handed_on_needs_nothing_of_training(
    whole_way: WholeWay, xrays: Path, tmp_path: Path
) -> None:
    """The best checkpoint as one file: the same volume, with every package refused that [infer] does not
    bring, and the figures of the leaderboard in its card."""
    model, out = tmp_path / "small.xr2ct", tmp_path / "v.npy"
    card = json.loads(xr2ct("export", whole_way.run, "--to", model, "--json").stdout)["card"]
    xr2ct("reconstruct", whole_way.run / "best", *views(xrays), "--out", tmp_path / "w.npy")
    code = f"""
import sys
for name in {REFUSED}:
    sys.modules[name] = None
from xr2ct.cli import main
told = [{str(model)!r}, *{views(xrays)!r}, "--out", {str(out)!r}]
sys.exit(main(["card", {str(model)!r}]) or main(["reconstruct", *told]))
"""
    cache = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=cache)
    assert done.returncode == 0, done.stderr
    assert "self-test passed" in done.stderr and "Not a medical device" in done.stdout
    assert np.array_equal(np.load(out), np.load(tmp_path / "w.npy"))
    assert card["learnt"][0]["cohort"]["synthetic"] is True
    best = (whole_way.run / "best").resolve().name
    with (whole_way.run / "evaluations" / best / "lctsc-test.csv").open() as file:
        (scored,) = csv.DictReader(file)
    told = {(row["cohort"]["name"], row["what"]): row["metrics"] for row in card["rows"]}
    assert told["lctsc", "mapper"]["honest/psnr"]["mean"] == pytest.approx(float(scored["honest/psnr"]))
    assert ("lidc-idri", "prior-mean") in told


def test_every_series_is_planned_and_taken(whole_way: WholeWay) -> None:
    with (whole_way.work / "lidc-idri.csv").open() as file:
        rows = list(csv.DictReader(file))
    taken = [row for row in rows if row["take"] == "yes"]
    assert len({row["patient"] for row in taken}) == len(taken) == 5
    assert all(float(row["lung_coverage"]) > 0.9 for row in taken)
    assert all(row["reason"] for row in rows)


def test_out_as_x2ct_and_in_again(whole_way: WholeWay, tmp_path: Path) -> None:
    from xr2ct.store import Store

    store = whole_way.work / "stores" / "lctsc.zarr"
    xr2ct("export", store, "--to", tmp_path / "x2ct", "--format", "x2ct")
    arguments = ["--out", tmp_path / "again.zarr", "--angles", "0", "--splits", "test"]
    xr2ct("ingest", "lctsc", tmp_path / "x2ct", *arguments)
    before, after = Store.open(store), Store.open(tmp_path / "again.zarr")
    assert np.array_equal(before.volume(before.cases[0], 64), after.volume(after.cases[0], 64))


def test_a_page_a_rejection_and_the_case_is_gone(whole_way: WholeWay, tmp_path: Path) -> None:
    store = tmp_path / "lidc-idri.zarr"
    shutil.copytree(whole_way.work / "stores" / "lidc-idri.zarr", store)
    xr2ct("inspect", store, "--page", tmp_path / "page.html")
    assert "SYN-LIDC-0003" in (tmp_path / "page.html").read_text()
    (tmp_path / "exclude.csv").write_text("case,reason\nSYN-LIDC-0003,moved\n")
    told = json.loads(xr2ct("inspect", store, "--exclude", tmp_path / "exclude.csv", "--json").stdout)
    assert told["cases"] == 4 and all("SYN-LIDC-0003" not in s for s in told["splits"].values())


def test_what_a_purge_took_is_named_and_repaired(whole_way: WholeWay, tmp_path: Path) -> None:
    store, plan = tmp_path / "lctsc.zarr", whole_way.work / "lctsc.csv"
    shutil.copytree(whole_way.work / "stores" / "lctsc.zarr", store)
    chunk = store / "ct/64/c/0/0/0/0"
    whole = chunk.read_bytes()
    chunk.write_bytes(bytes(len(whole)))
    done = xr2ct("inspect", store, "--verify", code=1)
    assert "case SYN-LCTSC-0001: its chunk of ct/64 differs from its checksum" in done.stderr
    xr2ct("ingest", "lctsc", plan, "--out", store, "--splits", "test", "--repair")
    assert chunk.read_bytes() == whole
    xr2ct("inspect", store, "--verify")
