"""A few cases of a store on one picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from xr2ct.store import Case, Store

SHEET_CASES = 6
SHEET_HU = (-1024.0, 600.0)
"""Black and white of the contact sheet: lungs and bone both show."""


def contact_sheet(store: Store, out: Path) -> None:
    """Write a PNG with three middle planes and two X-rays of a few cases, evenly taken over the rows.

    Planes are shown as a reader sees them: patient's right on the left, head and front up; front on the left
    in the sagittal one.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = min(SHEET_CASES, len(store.cases))
    cases = [store.cases[i] for i in np.linspace(0, len(store.cases) - 1, count).round().astype(int)]
    figure = Figure(figsize=(11, 2.4 * count), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, case in zip(figure.subplots(count, 5, squeeze=False), cases, strict=True):
        for axis, (title, picture, limits) in zip(axes, _pictures(store, case), strict=False):
            axis.imshow(picture, cmap="gray", vmin=limits[0], vmax=limits[1])
            axis.set_title(title, fontsize=8)
        for axis in axes:
            axis.set_axis_off()
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)


def _pictures(store: Store, case: Case) -> list[tuple[str, np.ndarray, tuple[float, float]]]:
    size = max((s for s in store.sizes if s <= 128), default=min(store.sizes))
    ct, middle = store.volume(case, size), size // 2
    outside = 100 * case.attributes["body_outside_cube"]
    pictures = [
        (f"{case.id}, {case.split}", ct[middle], SHEET_HU),
        (f"{outside:.0f} % of the body cut off", ct[::-1, middle], SHEET_HU),
        (f"{size}³, {store.cube_mm:g} mm", ct[::-1, :, middle], SHEET_HU),
    ]
    for name in list(store.geometries)[:1]:
        angles = _frontal_and_lateral(store.angles(name))
        for angle, view in zip(angles, store.xray(case, name, angles), strict=True):
            pictures.append((f"{name}, {angle:g}°", view, (0.0, float(view.max()))))
    return pictures


def _frontal_and_lateral(angles: tuple[float, ...]) -> list[float]:
    """The views nearest 0° and 90°; one of them where there is but one."""
    nearest = [min(angles, key=lambda a: abs((a - wanted + 180) % 360 - 180)) for wanted in (0.0, 90.0)]
    return list(dict.fromkeys(nearest))
