"""Builds of torch and DALI that do not fit what was asked for, each other or the driver are said."""

from __future__ import annotations

from dataclasses import replace

import pytest

from xr2ct import builds
from xr2ct.builds import Builds, problems

GOOD = Builds("2.13.0", "13.0", {"13": "2.4.0"}, "13.1")
SMI = """+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI 550.54.15              Driver Version: 550.54.15      CUDA {} 12.4     |
"""


@pytest.mark.parametrize(
    ("found", "wanted", "told"),
    [
        (GOOD, "13", []),
        (replace(GOOD, driver_cuda=None), "13", []),
        (replace(GOOD, torch="2.13.0+cpu", torch_cuda=None, driver_cuda=None), "cpu", []),
        (GOOD, "cpu", []),
        (
            replace(GOOD, torch_cuda=None),
            "13",
            ["CUDA=13 was asked for and torch 2.13.0 is built for the CPU"],
        ),
        (GOOD, "12", ["torch 2.13.0 is built for CUDA 13.0", "DALI for it is not installed"]),
        (replace(GOOD, dali={"12": "2.4.0", "13": "2.4.0"}), "13", ["DALI is installed twice"]),
        (
            replace(GOOD, driver_cuda="12.4"),
            "13",
            ["the driver here takes CUDA 12.4, torch is built for 13.0"],
        ),
    ],
)
def test_what_does_not_fit_is_named(found: Builds, wanted: str, told: list[str]) -> None:
    lines = problems(found, wanted)
    assert len(lines) == len(told)
    for line, part in zip(lines, told, strict=True):
        assert part in line


@pytest.mark.parametrize("words", ["Version:", "UMD Version:"])
def test_the_drivers_cuda_is_read_from_either_header(words, tmp_path, monkeypatch):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\ncat <<'END'\n{SMI.format(words)}END\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert builds.driver_cuda() == "12.4"


def test_without_nvidia_smi_there_is_no_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert builds.driver_cuda() is None


def test_the_command_says_what_is_here(capsys):
    found = builds.builds()
    if found.torch_cuda is None:
        assert builds.main(["13"]) == 1
        assert "is built for the CPU" in capsys.readouterr().err
    assert builds.main(["cpu"]) == 0
    assert f"torch {found.torch} for" in capsys.readouterr().out
    assert builds.main(["14"]) == 2
