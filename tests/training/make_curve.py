"""A stored fp32 loss curve: twenty outer steps that no optimisation may change but for its rounding.

    PYTHONPATH=tests python tests/training/make_curve.py    writes curves/NAME.json of every experiment below

It is there twice, with one thread and with two: the same program, whose sums are rounded in another order.
How far the two drift apart is what rounding alone does, step by step. Made before anything was optimised, and
to be made again only where a loss is meant to change.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from synthetic_store import write_store

from xr2ct import provenance
from xr2ct.config import load_experiment
from xr2ct.training.loop import train

CURVES = Path(__file__).with_name("curves")
STEPS = 20

EXPERIMENTS: dict[str, dict[str, Any]] = {
    "neural-ot": {
        "method": {
            "name": "neural-ot",
            "mapper_updates": 1,
            "potential": {"base_channels": 4, "max_channels": 32},
            "features": {"widths": [4, 8, 16, 32], "calibration_batches": 1},
        }
    },
}
"""What differs from `curve_values`' own."""


def curve_values(name: str, folder: Path, threads: int) -> dict[str, Any]:
    """A configuration's values: the paper's kind of networks at 64³, small."""
    return {
        "name": name,
        "run_root": str(folder / "runs"),
        "data": {"stores": str(folder), "size": 64, "views": [90, 0]},
        "mapper": {"name": "swin-unetr", "feature_size": 12, "depths": [2, 1, 1, 1], "window_size": 4},
        "optimizer": {"lr_per_sample": 5e-4},
        "training": {
            "steps": STEPS,
            "warmup_steps": 2,
            "batch": 2,
            "precision": "fp32",
            "checkpoint_every": STEPS,
            "threads": threads,
            "device": "cpu",
        },
        "tracking": {"enabled": False},
        **EXPERIMENTS[name],
    }


def run_curve(name: str, folder: Path, threads: int = 1) -> list[dict[str, float]]:
    """The losses of each outer step, trained in `folder`."""
    write_store(folder, ["train"] * 4, 64, (0.0, 90.0, 270.0), 64)
    config = folder / f"{name}.yaml"
    config.write_text(yaml.safe_dump(curve_values(name, folder, threads)), encoding="utf-8")
    run = train(load_experiment(config))
    return [{k: v for k, v in record.items() if k.startswith("loss/")} for record in run.metrics()]


def main() -> None:
    for name in EXPERIMENTS:
        curves = []
        for threads in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                curves.append(run_curve(name, Path(folder), threads))
        told = {
            "versions": provenance.versions(),
            "commit": provenance.commit(),
            "losses": curves[0],
            "rounded_otherwise": curves[1],
        }
        (CURVES / f"{name}.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
