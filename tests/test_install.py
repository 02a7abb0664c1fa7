"""What `make install`, the constraints and the container recipes ask for; none of them installs here."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VARIANTS = {"cpu": "cuda13", "12": "cuda12", "13": "cuda13"}
CONTAINER = ROOT / "slurm" / "container"


def planned(venv: Path, *words: str, path: str = "", **variables: str) -> str:
    """What make would run, with a driver found on `path` alone."""
    tools = venv.with_name("tools")
    tools.mkdir(exist_ok=True)
    for tool in ("make", "sh", "cat", "sed", "awk"):
        if not (tools / tool).exists():
            (tools / tool).symlink_to(shutil.which(tool) or tool)
    done = subprocess.run(
        [tools / "make", "--dry-run", "install", f"VENV={venv}", *words],
        cwd=ROOT,
        env={**os.environ, "PATH": f"{path}:{tools}", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout + done.stderr


def driver(folder: Path, cuda: str) -> str:
    smi = folder / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\necho '| NVIDIA-SMI 1.2  Driver Version: 580.1  CUDA Version: {cuda}  |'\n")
    smi.chmod(0o755)
    return str(folder)


@pytest.mark.parametrize("cuda", VARIANTS)
def test_a_variant_has_its_constraints_and_its_dali(cuda: str, tmp_path: Path) -> None:
    told = planned(tmp_path / "venv", f"CUDA={cuda}")
    name = "cpu" if cuda == "cpu" else f"cuda{cuda}"
    assert f"--constraint constraints/{name}.txt" in told
    assert f"train,fetch,{VARIANTS[cuda]},test" in told
    assert f"-m xr2ct.builds {cuda}" in told


@pytest.mark.parametrize(("cuda", "chosen"), [("12.4", "cuda12"), ("13.1", "cuda13"), ("14.0", "cuda13")])
def test_the_driver_decides_where_nothing_is_said(cuda: str, chosen: str, tmp_path: Path) -> None:
    told = planned(tmp_path / "venv", path=driver(tmp_path, cuda), CUDA="/usr/local/cuda")
    assert f"constraints/{chosen}.txt" in told


def test_what_was_installed_stays_and_another_build_begins_anew(tmp_path: Path) -> None:
    (tmp_path / "venv").mkdir()
    (tmp_path / "venv" / ".installed").write_text("12\n")
    os.utime(tmp_path / "venv" / ".installed", (0, 0))
    told = planned(tmp_path / "venv", path=driver(tmp_path, "13.0"))
    assert "constraints/cuda12.txt" in told and "--clear" not in told
    assert "--clear" in planned(tmp_path / "venv", "CUDA=cpu")


def test_no_driver_is_the_cpu_and_an_unknown_cuda_is_refused(tmp_path: Path) -> None:
    assert "constraints/cpu.txt" in planned(tmp_path / "venv")
    assert "CUDA=11: expected 12, 13 or cpu" in planned(tmp_path / "venv", "CUDA=11")


def test_a_wheelhouse_needs_no_network(tmp_path: Path) -> None:
    told = planned(tmp_path / "venv", "WHEELHOUSE=my wheels")
    assert told.count("--no-index --find-links 'my wheels'") == 2


@pytest.mark.parametrize("name", ["cpu", "cuda12", "cuda13"])
def test_constraints_pin_one_torch_and_one_dali(name: str) -> None:
    lines = (ROOT / "constraints" / f"{name}.txt").read_text().splitlines()
    assert "--constraint ../constraints.txt" in lines
    pins = [line for line in lines if line[0] not in "#-"]
    assert all(re.fullmatch(r"[A-Za-z0-9_.-]+==[\w.]+", pin) for pin in pins)
    assert len([pin for pin in pins if pin.startswith("torch==")]) == 1
    dali = f"nvidia-dali-cuda{12 if name == 'cuda12' else 13}0=="
    assert [pin for pin in pins if pin.startswith("nvidia-dali")] == [
        pin for pin in pins if pin.startswith(dali)
    ]
    common = {line.split("==")[0].lower() for line in (ROOT / "constraints.txt").read_text().splitlines()}
    assert not {pin.split("==")[0].lower() for pin in pins} & common


def test_the_recipes_take_what_is_there() -> None:
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    needed = {"xr2ct", "launch", "slurm", "configs", "constraints", "constraints.txt", "setup.cfg"}
    needed |= {"pyproject.toml", "README.md", "LICENSE", "wheelhouse"}
    apptainer = (CONTAINER / "xr2ct.def").read_text()
    files = re.search(r"%files\n(.*?)\n\n", apptainer, re.S)
    assert files
    assert {line.split()[0] for line in files[1].splitlines()} == needed
    kept = (CONTAINER / "Dockerfile.dockerignore").read_text().splitlines()
    assert {line[1:] for line in kept if line.startswith("!")} == needed
    assert all((ROOT / name).exists() for name in needed - {"wheelhouse"})
    for recipe in (apptainer, (CONTAINER / "Dockerfile").read_text()):
        assert re.search(r"BASE=nvidia/cuda:[\w.-]+", recipe)
        extras = re.search(r'"\.\[([\w,$]+)\]"', recipe)
        assert extras
        assert {"train", "cuda12", "cuda13"} <= set(setup["options.extras_require"])
        assert extras[1] == "train,$extra"


@pytest.mark.parametrize("cuda", VARIANTS)
def test_the_recipes_shell_installs_the_variant(cuda: str, tmp_path: Path) -> None:
    """Run with pip and rm replaced by an echo."""
    docker = (CONTAINER / "Dockerfile").read_text()
    docker_run = docker[docker.index("RUN python3 -m venv") + 4 : docker.index("WORKDIR /\n")]
    apptainer = (CONTAINER / "xr2ct.def").read_text()
    post = apptainer[apptainer.index("python3 -m venv") : apptainer.index("%environment")]
    post = post.replace("{{ CUDA }}", cuda).replace("{{ TORCH_INDEX }}", "")
    said = []
    for script in (docker_run, post):
        script = script.replace("/opt/xr2ct/bin/python", "echo").replace("python3 -m venv", "echo")
        script = script.replace("rm -rf", "echo")
        done = subprocess.run(
            ["sh", "-e", "-c", script],
            cwd=tmp_path,
            env={"PATH": "/usr/bin:/bin", "CUDA": cuda, "TORCH_INDEX": ""},
            capture_output=True,
            text=True,
            check=True,
        )
        said.append([line.split() for line in done.stdout.splitlines() if "pip" in line])
    assert said[0] == said[1]
    name = "cpu" if cuda == "cpu" else f"cuda{cuda}"
    assert f"constraints/{name}.txt" in said[0][0]
    assert f".[train,{VARIANTS[cuda]}]" in said[0][0]
