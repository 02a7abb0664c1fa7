"""A model handed on as one file: the same volumes, a card that says what the run's files say, no surprise."""

from __future__ import annotations

import csv
import gzip
import hashlib
import json
import logging
import pickle
import platform
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors import safe_open
from safetensors.numpy import save_file as save_arrays
from safetensors.torch import save_file
from tiny import resolved

from xr2ct.cli import main
from xr2ct.cohorts import catalogue
from xr2ct.config import Experiment, dump
from xr2ct.errors import UserError
from xr2ct.evaluation.results import COLUMNS, commit_rows
from xr2ct.exchange import export_model
from xr2ct.exchange.model_card import METRICS
from xr2ct.exchange.model_file import Extra, read_model
from xr2ct.exchange.volumes import volume_header, write_volume
from xr2ct.models.mapper import build_mapper
from xr2ct.projection.export import project_ct
from xr2ct.projection.geometry import Geometry
from xr2ct.reconstruction import self_test
from xr2ct.reconstruction.calibration import (
    Calibration,
    read_calibration,
    read_stand_in,
    write_calibration,
    write_stand_in,
)
from xr2ct.reconstruction.familiar import FILE, Familiar, load_familiar
from xr2ct.run import Run
from xr2ct.stages import load_stages
from xr2ct.windows import Tiling

GEOMETRY = Geometry("small", 541.0, 949.0, 500.0, pixels=32)
OWN = "our-hospital"
"""A cohort that is not public."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of nobody else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def own_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    file = tmp_path / "cohorts.yaml"
    file.write_text(f"{OWN}: {{citation: 'Dr. Secret, 2026', license: all ours}}\n")
    monkeypatch.setenv("XR2CT_COHORTS", str(file))
    return OWN


def checkpoint(folder: Path, **keys: Any) -> Path:
    """A checkpoint of random weights, as a folder."""
    keys = {"data": {}, "seed": 0, **keys}
    keys["data"] = {"size": 16, "views": [90, 0], **keys["data"]}
    experiment = Experiment(
        name="tried",
        mapper={"name": "unet", "channels": (4, 8)},
        resolved=resolved(GEOMETRY),
        **keys,
    )
    folder.mkdir(parents=True)
    for number, name in enumerate(("mapper", "mapper-ema")):
        drawn = experiment.model_copy(update={"seed": 10 * number + experiment.seed})
        weights = build_mapper(drawn, GEOMETRY, 320.0).state_dict()
        save_file(weights, folder / f"{name}.safetensors")
    (folder / "config.yaml").write_text(dump(experiment))
    (folder / "COMPLETE").touch()
    return folder


def made_run(folder: Path, **keys: Any) -> Run:
    """A run whose best checkpoint, of step 3, has been scored."""
    run = Run(folder)
    best = checkpoint(run.checkpoint(3), **keys)
    shutil.copyfile(best / "config.yaml", run.config_file)
    run.metrics_file.touch()
    run.best.symlink_to("checkpoints/step-000003")
    return run


def score(run: Run, source: str, cohort: str, psnr: list[float], **labels: str) -> None:
    """Two cases of the first patient, one of each other."""
    rows = [
        {"case": f"c{i}", "patient": f"{labels.get('prefix', 'P')}{max(0, i - 1)}", "views": "90+0"}
        | {"scaling": "window", "weights": "mapper" if "step" in source else "", "store": "0" * 12}
        | {"weights": labels.get("weights", "mapper" if "step" in source else "")}
        | {"honest/psnr": value, "honest/ssim": value / 100}
        for i, value in enumerate(psnr)
    ]
    assert commit_rows(run.evaluations / source / f"{cohort}-test.csv", rows)


@pytest.fixture(scope="module")
def handed_on(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run without scores, and its file."""
    folder = tmp_path_factory.mktemp("model")
    run = made_run(folder / "runs" / "tried")
    assert main(["export", str(run.path), "--to", str(folder / "handed on.xr2ct")]) == 0
    return folder


@pytest.fixture
def model(handed_on: Path, tmp_path: Path) -> Path:
    """That file, with its run beside it."""
    shutil.copytree(handed_on, tmp_path, symlinks=True, dirs_exist_ok=True)
    return tmp_path / "handed on.xr2ct"


@pytest.fixture
def views(tmp_path: Path) -> list[str]:
    """Arguments."""
    drawn = np.random.default_rng(0).random((2, 32, 32), np.float32)
    files = {angle: tmp_path / f"Mrs Miller {angle}.npy" for angle in (90, 0)}
    for view, file in zip(drawn, files.values(), strict=True):
        np.save(file, view)
    return [word for angle, file in files.items() for word in ("--view", f"{angle}={file}")]


def made(source: Path, views: list[str], out: Path, *options: str) -> np.ndarray:
    assert main(["reconstruct", str(source), *views, "--out", str(out), *options]) == 0
    volume: np.ndarray = np.load(out)
    return volume


def changed(
    model: Path, about: Callable[[dict[str, Any]], Any] | None = None, **tensors: torch.Tensor | None
) -> Path:
    """A copy whose header, or tensors, are others; `__` in a name stands for a slash."""
    with safe_open(model, "pt") as file:
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        told = json.loads(file.metadata()["xr2ct"])
    for name, tensor in tensors.items():
        held[name.replace("__", "/")] = tensor  # type: ignore[assignment]
    header = about(told) if about else told
    text = header if isinstance(header, str) else json.dumps(told)
    out = model.with_name("changed.xr2ct")
    save_file({name: t for name, t in held.items() if t is not None}, out, metadata={"xr2ct": text})
    return out


# What it makes


@pytest.mark.parametrize("weights", ["mapper", "mapper-ema"])
def test_it_reconstructs_what_the_checkpoint_does(weights: str, tmp_path: Path, views: list[str]) -> None:
    run, file = made_run(tmp_path / "run"), tmp_path / "m.xr2ct"
    assert main(["export", str(run.path), "--to", str(file), "--weights", weights]) == 0
    volume = made(file, views, tmp_path / "a.npy")
    assert volume.std() > 0
    np.testing.assert_array_equal(volume, made(run.best, views, tmp_path / "b.npy", "--weights", weights))
    other = "mapper" if weights == "mapper-ema" else "mapper-ema"
    assert (volume != made(run.best, views, tmp_path / "c.npy", "--weights", other)).any()


def test_the_stages_before_come_along(tmp_path: Path, views: list[str]) -> None:
    """16³, 16³ again, 32³ by sub-volumes; the run is gone by then."""
    run = made_run(
        tmp_path / "run", data={"size": 32, "window": 16}, coarse={"run": "/secret/place", "size": 16}, seed=2
    )
    checkpoint(run.path / "coarse", coarse={"run": "r", "size": 16}, seed=1)
    checkpoint(run.path / "coarse" / "coarse")
    expected = made(run.best, views, tmp_path / "b.npy")
    assert main(["export", str(run.path), "--to", str(tmp_path / "m.xr2ct")]) == 0
    shutil.rmtree(run.path)
    np.testing.assert_array_equal(made(tmp_path / "m.xr2ct", views, tmp_path / "a.npy"), expected)
    assert b"/secret/place" not in (tmp_path / "m.xr2ct").read_bytes()
    assert len(read_model(tmp_path / "m.xr2ct").about.card.learnt) == 3


def test_real_x_rays(model: Path, real_data: Path, tmp_path: Path) -> None:
    line_integrals = project_ct(real_data / "chest" / "ct-64" / "ct-64.nrrd", GEOMETRY, (90.0, 0.0))
    words = []
    for angle, view in zip((90, 0), line_integrals, strict=True):
        np.save(tmp_path / f"{angle}.npy", view)
        words += ["--view", f"{angle}={tmp_path / f'{angle}.npy'}"]
    volume = made(model, words, tmp_path / "a.npy")
    np.testing.assert_array_equal(volume, made(tmp_path / "runs/tried/best", words, tmp_path / "b.npy"))


def test_a_checkpoint_that_lies_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(checkpoint(tmp_path / "best-of-all")), "--to", str(tmp_path / "m.xr2ct")]) == 0
    assert "its card has no figures" in capsys.readouterr().out
    assert main(["card", str(tmp_path / "m.xr2ct")]) == 0
    assert "Not scored" in capsys.readouterr().out


def test_the_same_run_gives_the_same_bytes(model: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.xr2ct"
    assert main(["export", str(tmp_path / "runs" / "tried"), "--to", str(again)]) == 0
    assert again.read_bytes() == model.read_bytes()
    beside = tmp_path / "beside"
    beside.touch()
    assert again.stat().st_mode == beside.stat().st_mode  # whoever may read files here may read it


# What it says


def test_the_cards_figures_are_the_tables(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "run")
    score(run, "step-000003", "lidc-idri", [20.0, 22.0, 27.0])
    score(run, "step-000003~refine-5", "lidc-idri", [21.0, 23.0, 28.0])
    score(run, "step-000003~without-90", "lidc-idri", [1.0, 1.0, 1.0])
    score(run, "step-000002", "lidc-idri", [2.0, 2.0, 2.0])
    score(run, "prior-mean", "lidc-idri", [19.0, 19.0, 19.0])
    score(run, "somebody's", "lidc-idri", [3.0, 3.0, 3.0])
    score(run, "step-000003", "lctsc", [10.0, 11.0], prefix="SYN-LCTSC-000")
    assert main(["export", str(run.path), "--to", str(tmp_path / "m.xr2ct"), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["sha256"] == hashlib.sha256((tmp_path / "m.xr2ct").read_bytes()).hexdigest()
    rows = {(row["cohort"]["name"], row["what"]): row for row in told["card"]["rows"]}
    assert rows.keys() == {
        *(("lidc-idri", what) for what in ("mapper", "refine-5", "prior-mean")),
        ("lctsc", "mapper"),
    }
    with (run.evaluations / "step-000003" / "lidc-idri-test.csv").open() as file:
        values = [float(line["honest/psnr"]) for line in csv.DictReader(file)]
    psnr = rows["lidc-idri", "mapper"]["metrics"]["honest/psnr"]
    assert psnr["mean"] == pytest.approx(sum(values) / 3) and psnr["mean"] == pytest.approx(23)
    # Drawn by patient: the two scans of the first, of mean 21, come together.
    assert (psnr["low"], psnr["high"]) == pytest.approx((21, 27))
    assert (rows["lidc-idri", "mapper"]["patients"], rows["lidc-idri", "mapper"]["cases"]) == (2, 3)
    assert rows["lidc-idri", "mapper"]["metrics"].keys() == {"honest/psnr", "honest/ssim"}

    assert main(["card", str(tmp_path / "m.xr2ct")]) == 0
    text = capsys.readouterr().out
    assert "| lidc-idri | test | 2 | **the model** | 23 [21, 27] | 0.23 [0.21, 0.27] |" in text
    assert "prior: mean chest | 19 [19, 19]" in text and told["sha256"] in text
    assert "Not a medical device" in text
    entry = catalogue.cohort("lidc-idri")
    assert entry.doi in text and entry.license in text and entry.citation in text
    # Nothing of the collection that synthetic chests are called after.
    assert "lctsc: **Synthetic chests**" in text and catalogue.cohort("lctsc").doi not in text


def test_scores_of_other_weights_are_not_this_models(tmp_path: Path) -> None:
    run = made_run(tmp_path / "run")
    score(run, "step-000003", "lidc-idri", [20.0, 22.0])
    assert main(["export", str(run.path), "--to", str(tmp_path / "m.xr2ct"), "--weights", "mapper-ema"]) == 0
    assert read_model(tmp_path / "m.xr2ct").about.card.rows == ()


def test_nothing_tells_where_it_was_trained(
    tmp_path: Path, own_cohort: str, monkeypatch: pytest.MonkeyPatch, views: list[str]
) -> None:
    run = made_run(
        tmp_path / "run",
        data={"cohort": own_cohort, "stores": tmp_path / "stores"},
        run_root=tmp_path,
        tracking={"uri": "http://tracker.ward7.example"},
        evaluation={"cohorts": [own_cohort, "lctsc"]},
        deepspeed={"nvme": f"/local/{platform.node()}"},
    )
    score(run, "step-000003", own_cohort, [20.0, 22.0], prefix="case-")
    assert main(["export", str(run.path), "--to", str(tmp_path / "m.xr2ct")]) == 0
    content = (tmp_path / "m.xr2ct").read_bytes()
    secrets = (
        tmp_path,
        platform.node(),
        own_cohort,
        "ward7",
        "Secret",
        "all ours",
        "case-",
    )
    assert [text for text in map(str, secrets) if text.encode() in content] == []
    card = read_model(tmp_path / "m.xr2ct").about.card
    assert card.learnt[0].cohort.name == card.rows[0].cohort.name == "private-1"
    monkeypatch.delenv("XR2CT_COHORTS")  # a colleague has never heard of that cohort
    made(tmp_path / "m.xr2ct", views, tmp_path / "a.npy")


def test_a_volume_says_where_it_came_from(model: Path, views: list[str], tmp_path: Path) -> None:
    headers = []
    for name in ("v.mha", "v.nii.gz", "v.npy"):
        assert main(["reconstruct", str(model), *views, "--out", str(tmp_path / name)]) == 0
        headers.append(volume_header(tmp_path / name))
        content = b"".join(p.read_bytes() for p in tmp_path.glob(f"{name}*"))
        assert b"Miller" not in content and str(tmp_path).encode() not in content
    assert headers[0] == headers[1] == headers[2]
    told = headers[0]
    assert told["xr2ct_model_sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert (told["xr2ct_experiment"], told["xr2ct_checkpoint"]) == ("tried", "step-000003")
    assert told["xr2ct_self_test"] == "passed"
    digests = [hashlib.sha256(Path(word.partition("=")[2]).read_bytes()).hexdigest() for word in views[1::2]]
    assert told["xr2ct_views_sha256"] == f"90:{digests[0]} 0:{digests[1]}"


def test_extras_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {"mean": np.arange(6, dtype=np.float64).reshape(2, 3), "n": np.array(3)}
    extras = {"familiar": Extra(arrays, {"of": [1, None, "x"]}), "empty": Extra()}
    monkeypatch.setattr(export_model, "collect_extras", lambda checkpoint: extras)
    assert main(["export", str(checkpoint(tmp_path / "c")), "--to", str(tmp_path / "m.xr2ct")]) == 0
    held = read_model(tmp_path / "m.xr2ct").extras
    assert held.keys() == extras.keys() and held["familiar"].values == extras["familiar"].values
    for key, array in arrays.items():
        np.testing.assert_array_equal(held["familiar"].arrays[key], array)


def kept_beside(run: Run, cases: int = 16) -> None:
    """What the X-rays learnt from look like, and how doubt is calibrated in two ways."""
    drawn = np.random.default_rng(1).random((cases, 2, 32, 32))
    save_arrays(Familiar.of((90.0, 0.0), drawn, "max").arrays(), run.path / FILE)
    for way in ("doubt-views", "doubt-ensemble"):
        told = Calibration(
            way=way,
            draws=("a", "b"),
            weights="mapper",
            fitted_on="0" * 16,
            patients=3,
            voxels=9,
            place=1.5,
            deviation=0.5,
            edge_mm=2,
            place_hu=(3.0,) * 4096,
            intervals={95: 2.5},
            coverage_before={95: 0.5},
            coverage_after={95: 0.9},
        )
        write_calibration(run, 3, told)
    write_stand_in(run, torch.from_numpy(drawn.mean(0)), (90.0, 0.0))


def test_what_a_reconstruction_needs_of_the_run_comes_along(tmp_path: Path) -> None:
    run, file = made_run(tmp_path / "run"), tmp_path / "m.xr2ct"
    kept_beside(run)
    assert main(["export", str(run.path), "--to", str(file)]) == 0
    x_rays = np.random.default_rng(2).random((2, 32, 32))
    there, here = (load_familiar(place) for place in (run.best, file))
    assert there is not None and here is not None and here.compare(x_rays) == there.compare(x_rays)
    assert read_calibration(file, "doubt-views") == read_calibration(run.best, "doubt-views")
    assert torch.equal(read_stand_in(file), read_stand_in(run.best))
    assert read_calibration(file, "doubt-ensemble") is None  # it is one member alone


def test_nothing_comes_along_of_few_private_patients(tmp_path: Path, own_cohort: str) -> None:
    """A mean X-ray of a handful is theirs."""
    run = made_run(tmp_path / "run", data={"cohort": own_cohort, "stores": tmp_path})
    kept_beside(run)
    assert main(["export", str(run.path), "--to", str(tmp_path / "m.xr2ct")]) == 0
    assert read_model(tmp_path / "m.xr2ct").extras == {}


@pytest.mark.parametrize("shape", [(1,), (3, 1), ()])
def test_hostile_extras_are_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    run, file = made_run(tmp_path / "run"), tmp_path / "m.xr2ct"
    kept_beside(run)
    assert main(["export", str(run.path), "--to", str(file)]) == 0
    for key in ("mean", "variance", "distances", "angles_deg"):
        with pytest.raises(UserError, match=r"changed\.xr2ct: familiar: damaged"):
            load_familiar(changed(file, **{f"extras__familiar__{key}": torch.zeros(shape)}))

    with pytest.raises(UserError, match="its mean training view is of another shape"):
        read_stand_in(changed(file, extras__doubt__views=torch.zeros(shape)))

    def of_words(about: dict[str, Any]) -> None:
        about["extras"]["doubt"]["doubt-views"]["place_hu"] = "everywhere"

    with pytest.raises(UserError, match=r"changed\.xr2ct: doubt: doubt-views: place_hu"):
        read_calibration(changed(file, of_words), "doubt-views")


# Its self-test


def test_it_is_tested_at_its_first_use_alone(
    model: Path, views: list[str], tmp_path: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for expected in (1, 1):
        made(model, views, tmp_path / "a.npy")
        assert sum("self-test passed" in r.message for r in caplog.records) == expected
    assert len(list((cache / "xr2ct" / "self-test").iterdir())) == 1
    shutil.rmtree(cache)
    cache.write_text("in the way: nothing can be noted")
    for expected in (2, 3):
        made(model, views, tmp_path / "a.npy")
        assert sum("self-test passed" in r.message for r in caplog.records) == expected


@pytest.mark.parametrize("what", ["weights", "volume"])
def test_another_volume_than_there_fails(
    what: str, model: Path, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if what == "volume":
        kept = read_model(model).self_test.volume.clone()
        kept[3, 4, 5] += 1.5 * self_test.TOLERANCE_HU / 2500
        file = changed(model, self__test__volume=None, **{"self-test__volume": kept})
    else:
        bias = read_model(model).weights()["backbone.1.bias"] + 0.02
        file = changed(model, **{"stage-0__backbone.1.bias": bias})
    out = tmp_path / "a.npy"
    for _ in range(2):  # nothing is noted of a failure
        assert main(["reconstruct", str(file), *views, "--out", str(out)]) == 1
        assert "self-test failed" in capsys.readouterr().err
    assert not out.exists()


def test_a_volume_that_is_cut_is_not_comparable(model: Path) -> None:
    stages = load_stages(model)
    stages.tiling = Tiling.of(16, 8)
    assert self_test.self_test(stages) == "not comparable"


# Requests that do not fit


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["runs/tried", "--to", "m.nii"], "expected a name ending in .xr2ct"),
        (["runs/tried", "--to", "m.xr2ct", "--format", "mha", "--case", "a"], "--format, --case do not go"),
        (["store", "--to", "d", "--weights", "mapper"], "--weights do not go"),
        (["handed on.xr2ct", "--to", "m.xr2ct"], "a file; expected a store, a run or a checkpoint"),
        (["nothing", "--to", "m.xr2ct"], "nothing"),
    ],
)
def test_a_wrong_export_is_one_line(
    words: list[str],
    told: str,
    model: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(model.parent)
    assert main(["export", *words]) == 2
    said = capsys.readouterr().err
    assert told in said and len(said.strip().splitlines()) == 1


def test_a_run_that_nobody_has_scored(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made_run(tmp_path / "run")
    run.best.unlink()
    assert main(["export", str(run.path), "--to", str(tmp_path / "m.xr2ct")]) == 2
    assert f"evaluate it first, or name a checkpoint, as {run.checkpoint(3)}" in capsys.readouterr().err


def test_the_average_is_chosen_at_export(
    model: Path, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["reconstruct", str(model), *views, "--out", str(tmp_path / "a.npy"), "--weights", "mapper-ema"]
    assert main(words) == 2
    assert "holds weights 'mapper' alone" in capsys.readouterr().err


# Files from anywhere


def _configured(key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    """Set a key of the first stage's configuration."""

    def change(about: dict[str, Any]) -> None:
        *parents, leaf = key.split(".")
        section = about["stages"][0]["config"]
        for parent in parents:
            section = section[parent]
        section[leaf] = value

    return change


HEADERS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "not JSON": lambda about: "{",
    "JSON without end": lambda about: "[" * 100_000,
    "no object": lambda about: "[1]",
    "a number too long": lambda about: "1" * 10_000,
    "not a number": lambda about: about["card"]["taken"].update(sad_mm=float("nan")),
    "another format": lambda about: about.update(format=2),
    "no stage": lambda about: about.update(stages=[]),
    "a stage too many": lambda about: about.update(stages=about["stages"] * 2),
    "no card": lambda about: about.pop("card"),
    "a card of another kind": lambda about: about["card"].update(rows="many"),
    "a folder's name": lambda about: about["stages"][0].update(checkpoint="../../etc"),
    "a module outside": _configured("mapper.name", "../../evil"),
    "a module of Python": _configured("mapper.name", "os"),
    "a name that is none": _configured("mapper.name", ["unet"]),
    "no network": _configured("mapper", {"name": "features"}),
    "a method outside": _configured("method", {"name": "xr2ct.cli"}),
    "a method without a name": _configured("method", {}),
    "an unknown key": _configured("mapper.evil", 1),
    "an unknown key of resolved": _configured("resolved.evil", 1),
    "a network as large as a machine": _configured("mapper.channels", [2**22, 2**22]),
    "a network without end": _configured("mapper.num_res_units", 10**9),
    "a network of another shape": _configured("mapper.channels", [4, 16]),
    "channels of none": _configured("mapper.channels", [0, 0]),
    "a volume as large as a machine": _configured("data.size", 10**6),
    "pixels without end": _configured("resolved.geometry.pixels", 10**6),
    "half a pixel": _configured("resolved.geometry.pixels", 32.5),
    "a geometry of words": _configured("resolved.geometry.sad_mm", "far"),
    "a geometry of nothing": _configured("resolved.geometry", {}),
    "a cube of nothing": _configured("resolved.cube_mm", 0),
    "a window without end": _configured("data.hu_window", [-1e999, 1e999]),
    "not resolved": _configured("resolved", None),
    "a base": _configured("base", "/dev/zero"),
    "a stage before that is not there": _configured("coarse", {"run": "r", "size": 8}),
}
TENSORS: dict[str, dict[str, torch.Tensor | None]] = {
    "no weights": {"stage-0__backbone.1.bias": None},
    "weights of another shape": {"stage-0__backbone.1.bias": torch.zeros(3)},
    "weights that are none": {"stage-0__backbone.1.bias": torch.tensor([float("nan")])},
    "weights too many": {"stage-0__backbone.evil": torch.zeros(1)},
    "no self-test": {"self-test__views": None},
    "a self-test of other X-rays": {"self-test__views": torch.zeros(2, 4, 4)},
    "a self-test of another volume": {"self-test__volume": torch.zeros(3, 3, 3)},
}


def refused(source: Path, views: list[str], tmp_path: Path, said: pytest.CaptureFixture[str]) -> str:
    """What is said of a reconstruction that did not begin."""
    words = ["reconstruct", str(source), *views, "--out", str(tmp_path / "a.npy")]
    said.readouterr()
    assert main(words) == 2
    text = said.readouterr().err
    assert 1 <= len(text.strip().splitlines()) <= 3 and len(text) < 1200
    assert source.name in text and not (tmp_path / "a.npy").exists()
    assert main(["card", str(source)]) in (0, 2)
    return text


@pytest.mark.parametrize("case", HEADERS)
def test_a_hostile_header_is_refused(
    case: str, model: Path, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(changed(model, HEADERS[case]), views, tmp_path, capsys)


@pytest.mark.parametrize("case", TENSORS)
def test_hostile_numbers_are_refused(
    case: str, model: Path, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(changed(model, **TENSORS[case]), views, tmp_path, capsys)


def test_what_is_no_file_of_ours_is_refused(
    model: Path, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, length = model.read_bytes(), int.from_bytes(model.read_bytes()[:8], "little")
    marker = tmp_path / "executed"
    evil = pickle.dumps({"weights": _Evil(marker)})
    files = {
        "empty": b"",
        "short": whole[:5],
        "truncated header": whole[: length // 2],
        "truncated numbers": whole[:-1],
        "longer": whole + b"\0",
        "huge header": struct.pack("<Q", 2**63) + whole[8:],
        "header over the limit": struct.pack("<Q", 2**25) + whole[8:] + bytes(2**25),
        "pickle": evil,
        "zip": b"PK\x03\x04" + evil,
        "text": b"name: tried\n",
        "header of no object": struct.pack("<Q", 4) + b"true",
        "noise": np.random.default_rng(0).bytes(4096),
    }
    for name, content in files.items():
        file = tmp_path / f"{name}.xr2ct"
        file.write_bytes(content)
        refused(file, views, tmp_path, capsys)
    assert not marker.exists()
    weights = tmp_path / "runs/tried/best/mapper.safetensors"
    assert "go with the folder" in refused(weights, views, tmp_path, capsys)


class _Evil:
    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (Path.touch, (self.marker,))


@pytest.mark.parametrize("case", ["python", "base", "component", "pickle", "not a number", "larger"])
def test_a_hostile_folder_is_refused(
    case: str, views: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, marker = checkpoint(tmp_path / "theirs"), tmp_path / "executed"
    config, weights = folder / "config.yaml", folder / "mapper.safetensors"
    values = yaml.safe_load(config.read_text())
    match case:
        case "python":
            text = f"name: !!python/object/apply:os.system ['touch {marker}']\n"
            config.write_text(text)
        case "base":
            config.write_text(yaml.safe_dump({"base": "/dev/zero"} | values))
        case "component":
            config.write_text(yaml.safe_dump(values | {"mapper": {"name": "os"}}))
        case "larger":
            config.write_text(yaml.safe_dump(values | {"mapper": {"name": "unet", "channels": [2**22] * 2}}))
        case "pickle":
            weights.write_bytes(pickle.dumps(_Evil(marker)))
        case "not a number":
            held = build_mapper(Experiment(**values), GEOMETRY, 320.0).state_dict()
            held["backbone.1.bias"] = torch.full_like(held["backbone.1.bias"], torch.inf)
            save_file(held, weights)
    words = ["reconstruct", str(folder), *views, "--out", str(tmp_path / "a.npy")]
    assert main(words) == 2
    assert "Traceback" not in capsys.readouterr().err
    assert not marker.exists()


# Volumes as files


def test_a_nifti_keeps_its_voxels_beside_what_it_says(tmp_path: Path) -> None:
    """Read by the standard's own offsets."""
    hu = np.arange(4**3, dtype=np.int16).reshape(4, 4, 4)
    told = {"xr2ct_note": "a\nb  ä" + "x" * 3000}
    write_volume(hu, 320.0, tmp_path / "v.nii.gz", told)
    content = gzip.decompress((tmp_path / "v.nii.gz").read_bytes())
    (offset,) = struct.unpack_from("<f", content, 108)
    size, code = struct.unpack_from("<ii", content, 352)
    assert content[348] == 1 and code == 6 and size % 16 == 0 and 352 + size == offset
    np.testing.assert_array_equal(np.frombuffer(content[int(offset) :], np.int16), hu.ravel())
    assert volume_header(tmp_path / "v.nii.gz") == {"xr2ct_note": "a b ä" + "x" * 3000}
    first = (tmp_path / "v.nii.gz").read_bytes()
    write_volume(hu, 320.0, tmp_path / "v.nii.gz", told)
    assert (tmp_path / "v.nii.gz").read_bytes() == first


def test_every_metric_of_a_row_has_its_place() -> None:
    assert set(METRICS) <= set(COLUMNS)
