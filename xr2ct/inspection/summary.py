"""What a store holds: cases by split, arrays, and how much of the bodies is cut off."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from xr2ct.cohorts.names import SPLITS
from xr2ct.store import Store
from xr2ct.store.layout import ct_array, xray_array


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
        "excluded": len(store.excluded),
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
        *([f"excluded by exclude.csv: {told['excluded']} more"] if told["excluded"] else []),
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
