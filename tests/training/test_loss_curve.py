"""Losses are those of the stored curve, made before anything was optimised, up to the rounding of fp32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_curve import CURVES, EXPERIMENTS, run_curve


@pytest.mark.slow
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_twenty_steps(name: str, tmp_path: Path) -> None:
    stored = json.loads((CURVES / f"{name}.json").read_text(encoding="utf-8"))["losses"]
    losses = run_curve(name, tmp_path)
    assert len(losses) == len(stored)
    for step, (ours, theirs) in enumerate(zip(losses, stored, strict=True), start=1):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            # The potential's loss is 100 times a difference of two means, each known to a few 1e-7 of one.
            slack = 1e-2 if key == "loss/potential" else 2e-4
            assert ours[key] == pytest.approx(theirs[key], rel=1e-3, abs=slack), (step, key)
