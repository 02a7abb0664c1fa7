"""Losses are those of the stored curve, made before anything was optimised, up to the rounding of fp32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_curve import CURVES, EXPERIMENTS, run_curve

TIMES = 5
"""How many times further from the stored curve than the same program with sums in another order."""
RELATIVE, ABSOLUTE = 1e-5, {"loss/potential": 1e-3}
"""Allowed in any case, the latter of what is 100 times a difference of two means."""


@pytest.mark.slow
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_twenty_steps(name: str, tmp_path: Path) -> None:
    stored = json.loads((CURVES / f"{name}.json").read_text(encoding="utf-8"))
    losses = run_curve(name, tmp_path)
    assert len(losses) == len(stored["losses"])
    drift = dict.fromkeys(stored["losses"][0], 0.0)
    for step, ours in enumerate(losses):
        expected, otherwise = stored["losses"][step], stored["rounded_otherwise"][step]
        assert ours.keys() == expected.keys()
        for key in expected:
            drift[key] = max(drift[key], abs(otherwise[key] - expected[key]))
            least = ABSOLUTE.get(key, RELATIVE * abs(expected[key]))
            allowed = max(TIMES * drift[key], least)
            assert ours[key] == pytest.approx(expected[key], rel=0, abs=allowed), (step + 1, key)
