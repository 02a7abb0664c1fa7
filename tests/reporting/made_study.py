"""Runs made of files alone: a configuration, a best checkpoint by name, and results with chosen scores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from xr2ct.config import Experiment, dump, validate
from xr2ct.evaluation.metrics import COLUMNS
from xr2ct.evaluation.results import commit_rows, result_file, views_label
from xr2ct.run import Run, write_atomically

BEST = "step-000500"
RESOLVED = {
    "precision": "fp32",
    "world_size": 1,
    "geometry": {"name": "x2ct", "sad_mm": 541.0, "sid_mm": 949.0, "detector_mm": 500.0, "pixels": 64},
    "cube_mm": 320.0,
    "stores": {},
    "versions": {},
}

Scores = Mapping[str, float]
"""Honest PSNR by case, a case written PATIENT or PATIENT/SCAN."""


def made_run(folder: Path, scores: Mapping[tuple[str, str], Scores] | None = None, **config: Any) -> Run:
    """A run named as its folder whose best checkpoint, of step 500, has these scores by cohort and split."""
    values = {"name": "made", "resolved": RESOLVED, **config}
    values["evaluation"] = {"cohorts": ["lidc-idri", "lctsc"], **values.get("evaluation", {})}
    run = Run(folder)
    write_atomically(run.config_file, dump(validate(Experiment, values, "made")))
    run.checkpoint(500).mkdir(parents=True)
    (run.checkpoint(500) / "COMPLETE").touch()
    run.best.symlink_to(f"checkpoints/{BEST}")
    for (cohort, split), psnr in (scores or {}).items():
        put(run, BEST, cohort, split, psnr)
    return run


def put(run: Run, source: str, cohort: str, split: str, psnr: Scores) -> None:
    """Results whose honest PSNR is as told, other PSNRs as their modes have them, and the rest follows it."""
    data = run.experiment().data
    about = {
        "views": views_label(data.views),
        "scaling": data.scaling,
        "weights": "mapper" if source.startswith("step-") else "",
        "store": "abc",
    }
    rows = []
    for case, value in psnr.items():
        told = dict.fromkeys(COLUMNS, value / 50) | {"reprojection/relative_l2": 1 / value}
        told |= {name: value for name in COLUMNS if name.endswith(("/psnr", "/psnr_slice"))}
        told |= {"rc2024/psnr": value + 6.2245, "x2ct_3d/psnr": value + 4.286}
        rows.append({"case": case.replace("/", "-"), "patient": case.split("/")[0], **about, **told})
    commit_rows(result_file(run, source, cohort, split), rows)
