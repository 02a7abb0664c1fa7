"""Looking at a store: counts, what is cut off, every checksum, and a sheet of pictures."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from xr2ct.cohorts.names import SPLITS
from xr2ct.store import Case, Store
from xr2ct.store.layout import ct_array, xray_array

SHEET_CASES = 6
SHEET_HU = (-1024.0, 600.0)
"""Black and white of the contact sheet: lungs and bone both show."""


def summary(store: Store) -> dict[str, Any]:
    """Cases by split, what the arrays hold, and how much of the bodies is cut off. JSON throughout."""
    beams = {
        f"{name} {angle:g}°": [c.attributes["outside_beam"][name][f"{angle:g}"] for c in store.cases]
        for name in store.geometries
        for angle in store.angles(name)
    }
    return {
        "store": str(store.path),
        "cohort": store.cohort,
        "cube_mm": store.cube_mm,
        "cases": len(store.cases),
        "patients": len({c.patient for c in store.cases}),
        "splits": {name: [c.id for c in store.split(name)] for name in SPLITS},
        "sizes": list(store.sizes),
        "geometries": {
            name: {**geometry.as_attributes(), "angles_deg": list(store.angles(name))}
            for name, geometry in store.geometries.items()
        },
        "kernels": dict(Counter(c.attributes.get("kernel") or "unknown" for c in store.cases).most_common()),
        "body_outside_cube": _quantiles([c.attributes["body_outside_cube"] for c in store.cases]),
        "body_outside_beam": {view: _quantiles(values) for view, values in beams.items()},
        "bytes": _bytes(store),
    }


def format_summary(told: dict[str, Any]) -> str:
    """What `summary` says, for a terminal."""
    splits = ", ".join(f"{name} {len(cases)}" for name, cases in told["splits"].items())
    lines = [
        f"{told['store']}: {told['cohort']}, {told['cases']} cases of {told['patients']} patients ({splits})",
        f"cube {told['cube_mm']:g} mm at {', '.join(f'{s}³' for s in told['sizes'])}",
    ]
    for name, g in told["geometries"].items():
        angles = ", ".join(f"{a:g}" for a in g["angles_deg"])
        lines.append(
            f"xray/{name}: sad {g['sad_mm']:g}, sid {g['sid_mm']:g}, detector {g['detector_mm']:g} mm, "
            f"{g['pixels']}² pixels, {angles}°"
        )
    lines.append("kernels: " + ", ".join(f"{k} {n}" for k, n in told["kernels"].items()))
    lines.append(f"body outside the cube: {_percent(told['body_outside_cube'])}")
    lines += [f"body outside the beam, {v}: {_percent(q)}" for v, q in told["body_outside_beam"].items()]
    lines += [f"{array}: {size / 1e6:.1f} MB" for array, size in told["bytes"].items()]
    return "\n".join(lines)


def verify(store: Store) -> list[str]:
    """Every chunk of every visible case against its checksum: what is wrong, a line a chunk."""
    chunks = [(case, array) for case in store.cases for array in store.arrays()]
    # Threads, since both reading and hashing leave Python's lock.
    with ThreadPoolExecutor() as pool:
        found = pool.map(lambda chunk: store.problem(*chunk), chunks)
        return [
            f"{store.path}: case {case.id}: its chunk of {array} {problem}"
            for (case, array), problem in zip(chunks, found, strict=True)
            if problem
        ]


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


def _quantiles(values: list[float]) -> dict[str, float]:
    return {name: float(np.quantile(values, q)) for name, q in (("min", 0), ("median", 0.5), ("max", 1))}


def _percent(q: dict[str, float]) -> str:
    return f"median {100 * q['median']:.0f} %, {100 * q['min']:.0f}–{100 * q['max']:.0f} %"


def _bytes(store: Store) -> dict[str, int]:
    """Of the visible chunks, which are raw."""
    cases = len(store.cases)
    views = {n: len(store.angles(n)) * g.pixels**2 for n, g in store.geometries.items()}
    ct = {ct_array(s): cases * 2 * s**3 for s in store.sizes}
    return ct | {xray_array(n): cases * 4 * count for n, count in views.items()}
