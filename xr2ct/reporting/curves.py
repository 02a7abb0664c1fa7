"""How a run's training went: its losses, and every checkpoint on every cohort."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xr2ct.evaluation.results import Means
from xr2ct.reporting.chart import Chart, Panel, Series
from xr2ct.reporting.study import NAMES, order
from xr2ct.run import Run

_AT_MOST = 500
"""Steps drawn: more than a screen tells apart."""
_SCORES = {"honest/psnr": "honest PSNR, dB", "honest/ssim": "honest SSIM"}


def training_curves(run: Run, results: Sequence[Means]) -> Chart:
    """Of a run and all of its results."""
    metrics = list(run.metrics())
    every = max(1, math.ceil(len(metrics) / _AT_MOST))
    shown = metrics[::every]
    steps = tuple(float(m["step"]) for m in shown)
    losses = [key for key in (metrics[0] if metrics else {}) if key.startswith("loss/")]
    panels = [
        Panel("outer step", name, (Series("", steps, tuple(m[name] for m in shown), marker=None),))
        for name in losses
    ]
    panels += [
        Panel("outer step", label, _by_checkpoint(results, column), _levels(results, column))
        for column, label in _SCORES.items()
    ]
    told = f"Losses by outer step{f', every {every} of them' if every > 1 else ''}"
    return Chart(
        f"training-{run.path.name}",
        run.path.name,
        f"{told}, and every checkpoint on every cohort, with both priors on the validation split by which "
        "the checkpoint is chosen.",
        tuple(panels),
    )


def _by_checkpoint(results: Sequence[Means], column: str) -> tuple[Series, ...]:
    scored = [r for r in results if r.step is not None]
    pairs = sorted({(r.cohort, r.split) for r in scored}, key=order)
    series = []
    for pair in pairs:
        points = sorted((r.step or 0, r.mean(column)) for r in scored if (r.cohort, r.split) == pair)
        x, y = zip(*points, strict=True)
        series.append(Series(" ".join(pair), tuple(map(float, x)), y))
    return tuple(series)


def _levels(results: Sequence[Means], column: str) -> dict[str, float]:
    return {
        f"val, {NAMES[r.source]}": r.mean(column)
        for r in results
        if r.split == "val" and r.source.startswith("prior")
    }
