"""Which series of a cohort are taken: its rule, applied to what is known of each, and the reason in words."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from xr2ct.cohorts.catalogue import Preference, Rule
from xr2ct.cohorts.facts import Facts
from xr2ct.cohorts.refused import Refusal
from xr2ct.cohorts.series import Source
from xr2ct.cohorts.vocabulary import sharpness

COVERAGE_STEP = 0.1
"""To `prefer: coverage` all from 1.0 to 0.9 are whole lungs, and so on down: they are estimates."""
THICKNESS_STEP_MM = 0.1

Take = Literal["yes", "spare", "no"]


@dataclass(frozen=True)
class Line:
    """One series of a plan."""

    source: Source
    take: Take
    """`spare`: taken where the `yes` of its patient (or study) turns out unreadable, in this order."""
    reason: str
    where: str = ""
    """As `Refusal.where`."""


@dataclass(frozen=True)
class CohortPlan:
    """What becomes of a source."""

    cohort: str
    lines: tuple[Line, ...]
    """CT series and volume files; of a patient (or study) the `yes` first, then the spares by rank."""
    radiographs: tuple[Source, ...]
    """DX and CR series, kind "radiograph"."""
    refusals: tuple[Refusal, ...]
    """Patients without a series that can be taken, and what cannot be read."""
    left_out: tuple[Refusal, ...]
    """Images that are no CT scan: localizers, dose pages, other modalities. No fault of the patient's."""
    others: tuple[Line, ...] = ()
    """The series of `left_out` and `refusals` that have no line in `lines`, and the radiographs."""


def choose(sources: Sequence[Source], rule: Rule) -> list[Line]:
    """A line for each source, in the order of patients (and studies), within one the best first.

    One `yes` a patient or a study, as the rule says; `spare` is what the rule would take as well; `no` what
    it does not take. Lung coverages are those of the facts: see `eligible_by_header`.
    """
    groups: dict[tuple[str, str], list[Source]] = defaultdict(list)
    for source in sources:
        groups[source.patient, source.study if rule.scans == "study" else ""].append(source)
    return [line for key in sorted(groups) for line in _lines(groups[key], rule)]


def none_taken(lines: Iterable[Line]) -> Iterator[Refusal]:
    """The patients none of whose series is taken, with the reasons."""
    by_patient: dict[str, list[Line]] = defaultdict(list)
    for line in lines:
        by_patient[line.source.patient].append(line)
    for patient, own in sorted(by_patient.items()):
        if any(line.take == "yes" for line in own):
            continue
        if len(own) == 1:
            yield Refusal(patient, own[0].source.series, own[0].reason, own[0].where)
        else:
            reasons = "; ".join(dict.fromkeys(line.reason for line in own))
            yield Refusal(patient, "", f"none of {len(own)} series is taken: {reasons}")


def radiograph_lines(radiographs: Sequence[Source], lines: Sequence[Line]) -> Iterator[Line]:
    """Radiographs go with the CT of their patient."""
    taken = {line.source.patient for line in lines if line.take == "yes"}
    for source in radiographs:
        if source.patient in taken:
            yield Line(source, "yes", "radiograph, kept with the patient's CT")
        else:
            yield Line(source, "no", "radiograph of a patient without a CT that is taken")


def eligible_by_header(source: Source, rule: Rule) -> bool:
    """Whether all that is left to know of a source is its lung coverage."""
    return not source.flaw and not _unfit(source, rule)


def ineligible(source: Source, rule: Rule) -> str:
    """Why the rule does not take a source; empty where it may."""
    facts = _facts(source)
    unfit = _unfit(source, rule)
    if unfit:
        return unfit
    if source.flaw:
        return source.flaw.reason
    coverage = facts.lung_coverage
    if coverage is None:
        return "lung coverage not known"
    if coverage < rule.min_lung_coverage:
        return f"lungs cut: coverage {coverage:.2f}, at least {rule.min_lung_coverage:g}"
    return ""


def _lines(sources: Sequence[Source], rule: Rule) -> list[Line]:
    told = [(source, ineligible(source, rule)) for source in sources]
    ranked = sorted((source for source, reason in told if not reason), key=lambda s: _rank(s, rule))
    lines = []
    for place, source in enumerate(ranked):
        if place:
            lines.append(Line(source, "spare", _preferred(ranked[0], source, rule)))
        else:
            lines.append(Line(source, "yes", _first(ranked, rule)))
    for source, reason in sorted(told, key=lambda t: (t[0].study, t[0].series)):
        if reason:
            flawed = source.flaw and reason == source.flaw.reason
            lines.append(Line(source, "no", reason, source.flaw.where if source.flaw and flawed else ""))
    return lines


def _unfit(source: Source, rule: Rule) -> str:
    """What the headers have against a series by the rule. Slices and thickness that they do not tell are not
    held against it; of contrast and kernel a rule that asks for some wants to be sure."""
    facts = _facts(source)
    if 0 < facts.slices < rule.min_slices:
        return f"{facts.slices} slice{'s' * (facts.slices > 1)}, at least {rule.min_slices} taken"
    thickness = _thickness(source)
    least, most = rule.thickness_mm
    if thickness is not None and thickness > most + THICKNESS_STEP_MM / 2:
        return f"{_mm(thickness)} mm slices, at most {_mm(most)} taken"
    if thickness is not None and thickness < least - THICKNESS_STEP_MM / 2:
        return f"{_mm(thickness)} mm slices, at least {_mm(least)} taken"
    if rule.contrast != "any" and facts.contrast is not (rule.contrast == "with"):
        found = {True: "contrast", False: "no contrast", None: "contrast not known"}[facts.contrast]
        return f"{found}, the rule takes {'only scans with it' if rule.contrast == 'with' else 'none'}"
    if rule.kernels and not any(re.fullmatch(pattern, facts.kernel) for pattern in rule.kernels):
        return f"kernel {facts.kernel or 'not given'} not among {', '.join(rule.kernels)}"
    return ""


@dataclass(frozen=True)
class _Criterion:
    """One of `Rule.prefer`: the smallest value first; and in words what a better one has on a worse."""

    value: Callable[[Source], Any]
    told: Callable[[Source, Source], str]


def _thickness(source: Source) -> float | None:
    """Of the slices in mm; of a volume file their distance, but of a cube that was resampled nothing."""
    facts = _facts(source)
    apart = facts.spacing_mm[0] if facts.spacing_mm and source.kind != "x2ct" else None
    value = facts.thickness_mm or apart
    return value if value and math.isfinite(value) else None


def _thin(source: Source) -> float:
    value = _thickness(source)
    return math.inf if value is None else round(value / THICKNESS_STEP_MM)


def _missing(source: Source) -> int:
    """Steps of the lungs that are not in the scan."""
    return int((1.0 - (_facts(source).lung_coverage or 0.0)) / COVERAGE_STEP)


def _contrast(source: Source, wanted: bool) -> int:
    return {wanted: 0, None: 1, not wanted: 2}[_facts(source).contrast]


def _kernel(source: Source, wanted: str) -> int:
    found = sharpness(_facts(source).kernel)
    return 0 if found == wanted else 1 if not found else 2


_CRITERIA: dict[Preference, _Criterion] = {
    "acquired": _Criterion(lambda s: s.derived, lambda a, b: "acquired, not reformatted"),
    "coverage": _Criterion(
        _missing,
        lambda a, b: (
            f"more of the lungs (coverage {_facts(a).lung_coverage:.2f}, {_facts(b).lung_coverage:.2f})"
        ),
    ),
    "soft": _Criterion(lambda s: _kernel(s, "soft"), lambda a, b: f"softer kernel ({_kernels(a, b)})"),
    "sharp": _Criterion(lambda s: _kernel(s, "sharp"), lambda a, b: f"sharper kernel ({_kernels(a, b)})"),
    "thin": _Criterion(
        _thin, lambda a, b: f"thinner slices ({_mm(_thickness(a))} mm, {_mm(_thickness(b))} mm)"
    ),
    "slices": _Criterion(
        lambda s: -_facts(s).slices, lambda a, b: f"more slices ({_facts(a).slices}, {_facts(b).slices})"
    ),
    "contrast": _Criterion(lambda s: _contrast(s, True), lambda a, b: "contrast"),
    "no-contrast": _Criterion(lambda s: _contrast(s, False), lambda a, b: "no contrast"),
    "early": _Criterion(lambda s: _facts(s).date or "9", lambda a, b: "earlier"),
}


def _rank(source: Source, rule: Rule) -> tuple[Any, ...]:
    return (*(_CRITERIA[name].value(source) for name in rule.prefer), source.series, source.study)


def _decided(better: Source, worse: Source, rule: Rule) -> str:
    """The criterion that set one before the other, in words; empty where none did."""
    for name in rule.prefer:
        criterion = _CRITERIA[name]
        if criterion.value(better) != criterion.value(worse):
            return criterion.told(better, worse)
    return ""


def _preferred(best: Source, source: Source, rule: Rule) -> str:
    return f"another series is preferred: {_decided(best, source, rule) or 'alike, and its UID comes first'}"


def _first(ranked: Sequence[Source], rule: Rule) -> str:
    if len(ranked) == 1:
        return "the only one that the rule takes"
    decided = _decided(ranked[0], ranked[1], rule) or "alike, and its UID comes first"
    return f"first of {len(ranked)} that the rule takes: {decided}"


def _kernels(*sources: Source) -> str:
    return ", ".join(_facts(source).kernel or "not given" for source in sources)


def _facts(source: Source) -> Facts:
    return source.facts or Facts()


def _mm(value: float | None) -> str:
    """Two decimals at most, one at least: 5.0, 1.25."""
    if value is None:
        return "unknown"
    text = f"{value:.2f}"
    return text[:-1] if text.endswith("0") else text
