"""Eight checkpoints over a cohort by one `evaluate`, against eight evaluations of a checkpoint each.

Both leave the same files in a run, which is checked: the figures of every checkpoint, of the priors and of
the truth, to the digit. What is to be had of one pass is what does not depend on the checkpoint: the cohort
is read once, its masks found, what SSIM needs of the truth averaged, a pipeline built, the leaderboard made.

`sweep` is of processes, as a scheduler or a loop in a shell starts them: `xr2ct evaluate RUN`, against
`xr2ct evaluate RUN --step N` for each of the eight, one after the other. `sweep-in-process` is the same
without the starts: what is left is the work, most of it the networks' own, and no pass saves any of that. The
network is the demonstration's at 64³; on a GPU it is the paper's, at feature size 48, in process.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.benchmarks.harness import Measured, Row, seconds_of

if TYPE_CHECKING:
    from xr2ct.run import Run

STEPS = tuple(range(500, 4500, 500))
SMALL: Mapping[str, Any] = {"feature_size": 12, "depths": [1, 1, 1, 1], "window_size": 4}
"""As in configs/demo.yaml."""
PAPER: Mapping[str, Any] = {"feature_size": 48}
SPLITS = ("train",) * 2 + ("val",) * 2 + ("test",) * 2


def measure_processes() -> Measured:
    """Through the command, a process an evaluation."""
    return measure(_in_a_process, "cpu")


def measure(
    evaluation: Callable[[Run, str | int, str], object],
    device: str,
    network: Mapping[str, Any] = SMALL,
    steps: tuple[int, ...] = STEPS,
    size: int = 64,
    pixels: int = 256,
    rounds: int = 1,
) -> Measured:
    """`evaluation(run, steps, device)` of all steps at once, and of each, on runs without a result yet."""
    found: tuple[list[float], list[float]] = ([], [])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        stores = make_stores(folder, size, pixels)
        for turn in range(rounds):
            one, many = (
                make_run(folder / f"{side}{turn}", stores, network, steps, size) for side in ("one", "many")
            )
            found[0].append(seconds_of(lambda run=one: evaluation(run, "all", device)))
            found[1].append(seconds_of(lambda run=many: [evaluation(run, step, device) for step in steps]))
            check_same(one, many, len(steps))
    return Measured(*found, detail={"checkpoints": len(steps), "patients": len(SPLITS) - 2, "size": size})


def make_stores(folder: Path, size: int, pixels: int) -> Path:
    """FOLDER/stores with one cohort: two patients to learn from, two for validation, two to test on."""
    from tests.synthetic_store import write_store

    write_store(folder / "stores", SPLITS, size, (0.0, 90.0), pixels)
    return folder / "stores"


def make_run(
    folder: Path, stores: Path, network: Mapping[str, Any], steps: tuple[int, ...], size: int
) -> Run:
    """A run of untrained checkpoints, each with weights of its own."""
    from safetensors.torch import save_file

    from xr2ct.config import Experiment, dump, validate
    from xr2ct.models.mapper import build_mapper
    from xr2ct.run import Run, write_atomically
    from xr2ct.store import Store

    store = Store.open(stores / "lidc-idri.zarr")
    geometry = store.geometries["x2ct"]
    values: dict[str, Any] = {
        "name": folder.name,
        "data": {"stores": str(stores), "size": size, "views": [90, 0]},
        "mapper": {"name": "swin-unetr", **network},
        "evaluation": {"cohorts": ["lidc-idri"], "batch": 2},
        "resolved": {
            "precision": "fp32",
            "world_size": 1,
            "geometry": geometry.as_attributes(),
            "cube_mm": store.cube_mm,
            "stores": {},
            "versions": {},
        },
    }
    run = Run(folder)
    for step in steps:
        experiment = validate(Experiment, values | {"seed": step}, "benchmark")
        mapper = build_mapper(experiment, geometry, store.cube_mm)
        checkpoint = run.checkpoint(step)
        checkpoint.mkdir(parents=True)
        save_file(mapper.state_dict(), checkpoint / "mapper.safetensors")
        write_atomically(checkpoint / "config.yaml", dump(experiment))
        (checkpoint / "COMPLETE").write_text("{}", encoding="utf-8")
    write_atomically(run.config_file, dump(validate(Experiment, values, "benchmark")))
    return run


def check_same(one: Run, many: Run, checkpoints: int) -> None:
    """Both runs must have the same files, of every source and split, and the same best checkpoint."""
    files = [
        {f"{file.parent.name}/{file.name}": file.read_bytes() for file in run.evaluations.glob("*/*.csv")}
        for run in (one, many)
    ]
    assert len(files[0]) == 2 * (checkpoints + 3), sorted(files[0])
    assert files[0] == files[1], "a sweep's figures differ from those of separate evaluations"
    assert one.best_step() == many.best_step() is not None


def _in_a_process(run: Run, steps: str | int, device: str) -> None:
    told = [sys.executable, "-m", "xr2ct.cli", "evaluate", run.path, "--step", str(steps)]
    subprocess.run(told, check=True, capture_output=True)


def in_this_process(run: Run, steps: str | int, device: str) -> None:
    """`evaluate`, which keeps nothing from one call to the next."""
    from xr2ct.evaluation.sweep import evaluate

    evaluate(run, steps, device=device)


ROWS = (
    Row(
        "sweep",
        "8 checkpoints over 4 patients at 64³ by one process",
        "eight processes, one a checkpoint",
        "ours/peer",
        0.5,
        measure_processes,
    ),
    Row(
        "sweep-in-process",
        "8 checkpoints over 4 patients at 64³ by one call",
        "eight calls, one a checkpoint",
        "ours/peer",
        0.5,
        partial(measure, in_this_process, "cpu", rounds=3),
    ),
    Row(
        "sweep-cuda",
        "8 checkpoints over 4 patients at 64³, feature size 48, by one call",
        "eight calls, one a checkpoint",
        "ours/peer",
        0.5,
        partial(measure, in_this_process, "cuda", PAPER, rounds=3),
        device="cuda",
    ),
)
