"""Losses are those of the stored curve, made before anything was optimised, up to the rounding of fp32."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from make_curve import CURVES, EXPERIMENTS, run_curve

RELATIVE, ABSOLUTE = 1e-5, {"loss/potential": 1e-3}
"""In the first steps, the latter of what is 100 times a difference of two means."""
FIRST = 3
"""Steps before roundings grow: at which step a voxel first crosses a LeakyReLU's bend is chance, and how far
losses then drift apart is not."""
TIMES = 3
"""Afterwards so many times further at most than the same program ever is with sums in another order."""


@pytest.mark.slow
@pytest.mark.parametrize("name", list(EXPERIMENTS))
def test_twenty_steps(name: str, tmp_path: Path) -> None:
    stored = json.loads((CURVES / f"{name}.json").read_text(encoding="utf-8"))
    expected, otherwise = stored["losses"], stored["rounded_otherwise"]
    losses = run_curve(name, tmp_path)
    assert len(losses) == len(expected)
    for key in expected[0]:
        drift = max(abs(a[key] - b[key]) for a, b in zip(expected, otherwise, strict=True))
        for step, (ours, theirs) in enumerate(zip(losses, expected, strict=True), start=1):
            least = ABSOLUTE.get(key, RELATIVE * abs(theirs[key]))
            allowed = least if step <= FIRST else max(least, TIMES * drift)
            assert ours[key] == pytest.approx(theirs[key], rel=0, abs=allowed), (step, key)
