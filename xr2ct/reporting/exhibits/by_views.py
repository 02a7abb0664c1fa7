"""How much more views help: by cohort, and by the way a view becomes a volume (the paper's Fig. 7)."""

from __future__ import annotations

from xr2ct.reporting.chart import Chart, Panel
from xr2ct.reporting.exhibit import exhibit
from xr2ct.reporting.lines import Line, cohort_panels, elsewhere, lines, places, series
from xr2ct.reporting.study import Study
from xr2ct.reporting.systems import System

_LIFTS = {
    "repeat": ("transposition only", "*"),
    "rotate": ("coarse alignment", "^"),
    "backproject": ("along each ray", "s"),
}
"""What the paper calls a lift, and its marker there; the third is not in it."""
_BARS = "Bars: 95 % interval over patients. "


@exhibit("views")
def make_views(study: Study) -> Chart | None:
    """Honest PSNR and SSIM against the number of views."""
    found = lines(study.systems, _views, ("data.views",))
    if len(places(found)) < 2:
        return None
    columns = {"honest/psnr": "honest PSNR, dB", "honest/ssim": "honest SSIM"}
    return Chart(
        "views",
        "Number of views by cohort",
        f"{_BARS}Test splits, mode honest.",
        cohort_panels(study, found, "views", columns, "patients"),
    )


@exhibit("paper-fig7")
def make_fig7(study: Study) -> Chart | None:
    """The paper's Fig. 7 with a third lift: in distribution solid, out of it lighter."""
    systems = [s for s in study.systems if s.experiment.lift.kind in _LIFTS]
    found = lines(systems, _views, ("data.views",), lambda e: _LIFTS[e.lift.kind][0])
    if len({_kind(line) for line in found}) < 2 or len(places(found)) < 2:
        return None
    cohort = systems[0].experiment.data.cohort
    other = elsewhere(study, cohort)
    columns = {
        "honest/psnr": "honest PSNR, dB",
        "honest/ssim": "honest SSIM",
        "rc2024/psnr": "rc2024 PSNR, dB",
        "rc2024/ssim": "rc2024 SSIM",
    }
    lighter = f"; lighter: out of it ({other})" if other else ""
    return Chart(
        "paper-fig7",
        "View alignment by number of views (the paper's Fig. 7)",
        f"Solid: in distribution ({cohort}){lighter}. {_BARS}The paper has this figure as a plot without "
        "numbers, in rc2024 and on per-volume min–max scaling: its shape compares with rc2024's here, its "
        "level does not.",
        tuple(_panel(study, found, cohort, other, *told) for told in columns.items()),
    )


def _panel(study: Study, found: list[Line], cohort: str, other: str | None, column: str, name: str) -> Panel:
    drawn = []
    for line in found:
        style = {"tone": line.label, "marker": _LIFTS[_kind(line)][1]}
        drawn.append(series(study, line, cohort, column, "patients", **style))
        if other:
            told = f"{line.label}, {other}"
            drawn.append(series(study, line, other, column, "patients", label=told, light=True, **style))
    ticks = places(found)
    return Panel("views", name, tuple(s for s in drawn if s.x), log_x=True, ticks=ticks)


def _kind(line: Line) -> str:
    return next(iter(line.systems.values())).experiment.lift.kind


def _views(system: System) -> float:
    return float(len(system.experiment.data.views))
