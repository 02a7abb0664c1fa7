"""A model's card as Markdown."""

from __future__ import annotations

import re

from xr2ct.exchange.model_card import METRICS, Card, Cohort, Interval, Learnt, Row
from xr2ct.exchange.model_file import Model

_TITLES = {
    "honest/psnr": "PSNR, dB",
    "honest/ssim": "SSIM",
    "honest/mae_hu": "MAE, HU",
    "honest_lungs/mae_hu": "MAE in lungs, HU",
    "rc2024/psnr": "PSNR as `rc2024`, dB",
    "reprojection/relative_l2": "re-projection error",
}
_NAMES = {
    "mapper": "**the model**",
    "prior-mean": "prior: mean chest",
    "prior-nearest": "prior: nearest patient",
    "truth": "the CT itself, re-projected",
}


def card_text(model: Model) -> str:
    """The card, with the file's digest."""
    card = model.about.card
    blocks = [
        f"# {_plain(card.label or card.name)}",
        f"**{_plain(card.not_a_device)}**",
        f"Chest X-rays to a CT-like volume, by xr2ct {_plain(model.about.version)}. "
        f"SHA-256 of the file: `{model.sha256}`",
        "## Intended use",
        _plain(card.intended_use),
        "## Limits",
        "\n".join(f"- {_plain(limit)}" for limit in card.limits),
        "## X-rays and volume",
        _taken(card),
        "## What it learnt from",
        "\n".join(_learnt(number, learnt) for number, learnt in enumerate(card.learnt)),
        "## How well it does",
        _scores(card),
        "## Training",
        _training(card),
    ]
    return "\n\n".join(blocks) + "\n"


def _taken(card: Card) -> str:
    t = card.taken
    views = ", ".join(f"{angle:g}°" for angle in t.views_deg)
    return (
        f"Views at {views} (AP 0°, RLAT 90°, PA 180°, LLAT 270°), each {t.pixels}×{t.pixels} pixels of a "
        f"detector of {t.detector_mm:g} mm, source to isocentre {t.sad_mm:g} mm, source to detector "
        f"{t.sid_mm:g} mm. The volume is {t.size}³ voxels of {t.cube_mm / t.size:.4g} mm, a cube of "
        f"{t.cube_mm:g} mm about the isocentre, from {t.hu_window[0]:g} to {t.hu_window[1]:g} HU."
    )


def _learnt(number: int, learnt: Learnt) -> str:
    stage = f"- stage before, {number} back: " if number else "- "
    if learnt.cases is None:
        count = "cases not counted (the store was not at hand)"
    else:
        count = f"{learnt.cases} cases of {learnt.patients} patients"
    return f"{stage}{_plain(learnt.cohort.name)}, {count}. {_origin(learnt.cohort)}"


def _origin(cohort: Cohort) -> str:
    if cohort.synthetic:
        return "**Synthetic chests**, made by xr2ct in the manner of that cohort: no patient's."
    if not cohort.public:
        return "A laboratory's own cohort, which is not public."
    doi = f", doi:{cohort.doi}" if cohort.doi else ""
    told = f"{cohort.collection}{doi}. Licence: {cohort.license or 'not stated'}. {cohort.citation}"
    unsure = " (whether synthetic or real was not looked at)" if cohort.synthetic is None else ""
    return _plain(told.strip() + unsure)


def _scores(card: Card) -> str:
    if not card.rows:
        return "Not scored: this file was made of a checkpoint without evaluations of these weights."
    shown = [m for m in METRICS if any(m in row.metrics for row in card.rows)]
    head = ["cohort", "split", "patients", "", *(_TITLES[m] for m in shown)]
    lines = [head, ["---"] * len(head)]
    for row in card.rows:
        labels = [_plain(row.cohort.name), _plain(row.split), str(row.patients), _name(row)]
        lines.append([*labels, *(_interval(row.metrics.get(metric)) for metric in shown)])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    cohorts = {row.cohort.name: row.cohort for row in card.rows}
    origins = "\n".join(f"- {_plain(name)}: {_origin(cohort)}" for name, cohort in sorted(cohorts.items()))
    about = (
        "Mean [95 % interval: bootstrap over patients]. The HU window as [0, 1], over the whole volume, "
        "unless stated otherwise. A model that is not above both priors knows nothing of the patient. "
        "By `val` a run's best checkpoint is chosen: `test` is what to expect."
    )
    return f"{table}\n\n{about}\n\n{origins}"


def _name(row: Row) -> str:
    return _NAMES.get(row.what, f"the model, {_plain(row.what)}")


def _interval(value: Interval | None) -> str:
    if value is None or value.mean is None:
        return "–"
    if value.low is None or value.high is None:
        return f"{value.mean:.4g}"
    return f"{value.mean:.4g} [{value.low:.4g}, {value.high:.4g}]"


def _training(card: Card) -> str:
    t = card.training
    step = "an unnamed step" if t.step is None else f"outer step {t.step}"
    versions = ", ".join(f"{_plain(name)} {_plain(version)}" for name, version in sorted(t.versions.items()))
    return (
        f"{_plain(t.network)} by {_plain(t.method)}, {step} of {t.steps}, batch {t.batch}, seed {t.seed}, "
        f"{_plain(t.precision)}; weights: {_plain(t.weights)}. Commit {_plain(t.commit or 'unknown')}. "
        f"{versions}"
    )


def _plain(text: str) -> str:
    """On one line, without what moves a terminal's cursor or opens a cell of a table."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f|]+", " ", text)
