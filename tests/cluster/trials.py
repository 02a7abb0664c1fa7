"""Tiny training runs on a tests' Slurm: stores, configurations, profiles, submission, the outcome."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from bed import Bed, lines_of, wait_until
from tiny import losses, tiny_experiment

from xr2ct.projection.geometry import Geometry
from xr2ct.run import Run
from xr2ct.store import write
from xr2ct.store.layout import XraySet
from xr2ct.training import checkpoints

GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=16)
ANGLES = (0.0, 90.0, 180.0, 270.0)
SIZE = 16
TRAINING_CASES = {"train": 5, "val": 2, "test": 2}


def write_store(folder: Path, cohort: str, splits: Mapping[str, int], seed: int = 0) -> Path:
    """FOLDER/COHORT.zarr of noise at 16³: so many cases of each split."""
    path = folder / f"{cohort}.zarr"
    noise = np.random.default_rng([seed, *cohort.encode()])
    cases = [split for split, count in splits.items() for _ in range(count)]
    write.lay_out(path, cohort, 320.0, len(cases), [SIZE], [XraySet(GEOMETRY, ANGLES)])
    rows = []
    for row, split in enumerate(cases):
        volume = noise.integers(-1200, 1500, (SIZE, SIZE, SIZE)).astype(np.int16)
        views = noise.gamma(2.0, 1.0, (len(ANGLES), GEOMETRY.pixels, GEOMETRY.pixels)).astype(np.float32)
        sums = {
            name: write.write_chunk(path, name, row, values)
            for name, values in ((f"ct/{SIZE}", volume), ("xray/x2ct", views))
        }
        write.write_case(path, f"{cohort}-{row}", {"checksums": sums})
        rows.append({"id": f"{cohort}-{row}", "patient": f"{cohort}-{row}", "split": split, "row": row})
    write.publish(path, rows, [SIZE], ["x2ct"])
    return path


def experiment_values(
    run_root: Path, stores: Path, name: str, sections: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    """A configuration that trains within seconds, with keys of its sections replaced."""
    training = {"batch": 4, **sections.get("training", {})}
    return tiny_experiment(name, run_root, stores, {**sections, "training": training})


@dataclass(frozen=True)
class Member:
    """A submitted run: its folder, and its job as ``123_0``."""

    run: Run
    job: str

    @property
    def slurm(self) -> Path:
        return self.run.path / "slurm"

    def said(self, rank: int | None = None) -> str:
        """What its ranks (or one of them) and the host script said, in every attempt of every job."""
        pattern = "*.out" if rank is None else f"*-rank-{rank}.out"
        logs = sorted(self.slurm.glob(pattern))
        return "\n".join(
            f"--- {log.name}\n{log.read_text(encoding='utf-8', errors='replace')}" for log in logs
        )

    def stops(self) -> list[dict[str, Any]]:
        return lines_of(self.slurm / "stops.jsonl")

    def step(self) -> int:
        """Of the last line in metrics.jsonl; 0 where there is none."""
        return max((record["step"] for record in self.run.metrics()), default=0)

    def wait_step(self, step: int, timeout_s: float = 600.0) -> None:
        wait_until(f"{self.run.path.name} is at step {step}", lambda: self.step() >= step, timeout_s)

    def again(self) -> Member:
        """The same run as last submitted."""
        told = json.loads((self.slurm / "job.json").read_text(encoding="utf-8"))
        return Member(self.run, told["job"])


class Trials:
    """Writes configurations and profiles in a folder, and submits them."""

    def __init__(self, bed: Bed, folder: Path, stores: Path) -> None:
        self.bed = bed
        self.folder = folder
        self.stores = stores
        self.run_root = folder / "runs"

    def config(
        self, name: str = "tiny", sweep: Mapping[str, Sequence[Any]] | None = None, **sections: Any
    ) -> Path:
        """A configuration's file; `sweep` makes it an array."""
        values = experiment_values(self.run_root, self.stores, name, sections)
        if sweep:
            values["sweep"] = dict(sweep)
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    def profile(self, name: str = "bed", mlflow: bool = False, **keys: Any) -> Path:
        """A cluster's file: two ranks on one node, no evaluator, unless `keys` say otherwise."""
        values: dict[str, Any] = {
            "executor": "slurm",
            "partition": "main",
            "tasks_per_node": 2,
            "cpus_per_task": 1,
            "time_limit_min": 20,
            "signal_lead_s": 60,
            "environment": {
                "PYTHONPATH": str(Path(__file__).with_name("site")),
                "OMP_NUM_THREADS": "1",
                "TESTS_WITHOUT_MLFLOW": "" if mlflow else "1",
            },
            "evaluator": {"schedule": "off"},
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**values, **keys}), encoding="utf-8")
        return path

    def submit(self, config: Path, profile: Path, *overrides: str) -> list[Member]:
        """`xr2ct submit`; the members in the array's order."""
        before = set(self.jobs())
        self.bed.xr2ct("submit", config, "--cluster", profile, *overrides)
        new = {job: run for job, run in self.jobs().items() if job not in before}
        assert new, "nothing was submitted"
        return [Member(Run(new[job]), job) for job in sorted(new, key=lambda job: int(job.rsplit("_")[-1]))]

    def jobs(self) -> dict[str, Path]:
        """The last job of each run below the run root."""
        told = {
            path: json.loads(path.read_text(encoding="utf-8"))
            for path in self.run_root.rglob("slurm/job.json")
        }
        return {values["job"]: path.parent.parent for path, values in told.items()}

    def finish(self, *members: Member, timeout_s: float = 600.0) -> None:
        """Until every member has ended, and well."""
        for member in members:
            state = self.bed.wait_ended(member.job, timeout_s)
            assert state == "COMPLETED", f"{member.job} of {member.run.path} {state}\n{member.said()}"


class Undisturbed:
    """A run trained to its end by plain `xr2ct train`, without Slurm, while tests go on."""

    def __init__(
        self, folder: Path, stores: Path, ranks: int, environment: Mapping[str, str], **sections: Any
    ) -> None:
        values = experiment_values(folder / "runs", stores, "undisturbed", sections)
        config = folder / "undisturbed.yaml"
        config.write_text(yaml.safe_dump(values), encoding="utf-8")
        self._run = Run(folder / "runs" / "undisturbed")
        self._logs = [folder / f"rank-{rank}.log" for rank in range(ranks)]
        self._processes = []
        with ExitStack() as opened:
            for rank, log in enumerate(self._logs):
                said = opened.enter_context(log.open("wb"))
                variables = {
                    "TESTS_WITHOUT_MLFLOW": "1",
                    "RANK": str(rank),
                    "WORLD_SIZE": str(ranks),
                    "XR2CT_RENDEZVOUS": str(folder / "meet"),
                }
                call = [sys.executable, "-m", "xr2ct.cli", "train", str(config)]
                self._processes.append(
                    subprocess.Popen(call, env={**environment, **variables}, stdout=said, stderr=said)
                )

    def run(self) -> Run:
        """When it has ended."""
        codes = [process.wait(900) for process in self._processes]
        said = "\n".join(log.read_text(encoding="utf-8") for log in self._logs)
        assert codes == [0] * len(codes), said
        return self._run

    def kill(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()


def assert_same_run(run: Run, reference: Run) -> None:
    """Every step once; losses and weights equal to the bit; checkpoints whole, nothing half written."""
    steps = [record["step"] for record in lines_of(run.metrics_file)]
    assert steps == list(range(1, len(losses(reference)) + 1))
    assert losses(run) == losses(reference)
    assert_whole(run)
    last = reference.steps()[-1]
    assert run.steps()[-1] == last
    for weights in sorted(reference.checkpoint(last).glob("*.safetensors")):
        assert (run.checkpoint(last) / weights.name).read_bytes() == weights.read_bytes(), weights.name


def assert_whole(run: Run) -> None:
    for step in run.steps():
        checkpoint = run.checkpoint(step)
        if (checkpoint / checkpoints.ENGINES).is_dir():
            checkpoints.verify(checkpoint)
    assert not list((run.path / "checkpoints").glob(".partial-*"))
