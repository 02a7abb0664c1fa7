"""An experiment that trains within seconds."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xr2ct.config import Resolved
from xr2ct.projection.geometry import Geometry
from xr2ct.run import Run

STEPS = 12


def tiny_experiment(
    name: str, run_root: Path, stores: Path, sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A configuration's values, with keys of its sections, or a component, replaced."""
    values: dict[str, Any] = {
        "name": name,
        "run_root": str(run_root),
        "data": {"stores": str(stores), "size": 16},
        "mapper": {"name": "tiny-conv"},
        "method": {
            "name": "neural-ot",
            "mapper_updates": 1,
            "potential": {"base_channels": 2, "max_channels": 4},
            "features": {"widths": [2, 2, 4, 4], "calibration_batches": 1},
        },
        "optimizer": {"lr_per_sample": 1e-3},
        "training": {
            "steps": STEPS,
            "warmup_steps": 2,
            "batch": 2,
            "precision": "fp32",
            "checkpoint_every": 3,
            "threads": 1,
            "device": "cpu",
            "ema": {"every": 2},
        },
        "tracking": {"enabled": False},
    }
    for section, keys in sections.items():
        # A component's keys go with its name.
        values[section] = dict(keys) if "name" in keys else {**values.get(section, {}), **keys}
    return values


def losses(run: Run) -> list[dict[str, float]]:
    """What each step wrote, but for what another run of the same differs in: the time and memory it took."""
    return [{k: v for k, v in r.items() if k not in ("seconds", "memory_bytes")} for r in run.metrics()]


def resolved(geometry: Geometry) -> Resolved:
    """What training would have found out, for a checkpoint that nobody has trained."""
    return Resolved(
        precision="fp32",
        world_size=1,
        geometry=geometry.as_attributes(),
        cube_mm=320.0,
        stores={},
        versions={},
    )
