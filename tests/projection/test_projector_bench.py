"""The projector's benchmarks, small: that they run, and compare the same pictures."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace

import pytest
import torch

from tests.benchmarks import projector
from tests.benchmarks.harness import NotMeasured

SMALL = replace(projector.GEOMETRY, pixels=32)


@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_plastimatch_by_its_own_clock(angle: float) -> None:
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed (Debian package plastimatch)")
    measured = projector.against_plastimatch(angle, size=64, rounds=2, geometry=SMALL)
    assert len(measured.ours) == len(measured.peer) == 2
    assert min(*measured.ours, *measured.peer) > 0
    assert 0 < measured.detail["relative_l2"] < 0.01


@pytest.mark.parametrize("angle", [0.0, 30.0])
def test_diffdrr_renders_the_same_view(angle: float) -> None:
    pytest.importorskip("diffdrr.renderers", reason="DiffDRR is not installed")
    measured = projector.against_diffdrr(size=48, angle=angle, rounds=1, geometry=SMALL)
    assert 0 < measured.detail["relative_l2"] < 0.01


def test_what_is_missing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "diffdrr.renderers", None)
    with pytest.raises(NotMeasured, match="pip install --no-deps diffdrr"):
        projector.against_diffdrr(size=8, geometry=SMALL)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NotMeasured, match="Debian package plastimatch"):
        projector.against_plastimatch(0.0, size=8, geometry=SMALL)


def test_other_pictures_are_no_comparison() -> None:
    with pytest.raises(AssertionError, match=r"differ by 2\.00%"):
        projector._difference(torch.full((4, 4), 1.02), torch.ones(4, 4))


def test_reading_at_the_bandwidth_of_a_copy() -> None:
    measured = projector.against_reading(45.0, device="cpu", size=16, calls=1)
    assert min(*measured.ours, *measured.peer) > 0
    assert measured.detail["bandwidth_gb_s"] > 0
