"""A store of noise and a configuration that trains on it within seconds."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import train_process
import yaml

from xr2ct.projection.geometry import Geometry
from xr2ct.run import Run
from xr2ct.store import Store, write
from xr2ct.store.layout import XraySet

HERE = Path(__file__).parent
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=16)
ANGLES = (0.0, 90.0, 180.0, 270.0)
CASES = 5
SIZE = 16


@pytest.fixture(scope="session")
def make_store(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Store]:
    """make_store(size, seed=0): COHORT.zarr in a folder of its own."""

    def make(size: int, seed: int = 0, folder: Path | None = None) -> Store:
        path = (folder or tmp_path_factory.mktemp("stores")) / "lidc-idri.zarr"
        noise = np.random.default_rng(seed)
        write.lay_out(path, "lidc-idri", 320.0, CASES, [size], [XraySet(GEOMETRY, ANGLES)])
        rows = []
        for row in range(CASES):
            volume = noise.integers(-1200, 1500, (size, size, size)).astype(np.int16)
            views = noise.gamma(2.0, 1.0, (len(ANGLES), GEOMETRY.pixels, GEOMETRY.pixels)).astype(np.float32)
            sums = {
                name: write.write_chunk(path, name, row, values)
                for name, values in ((f"ct/{size}", volume), ("xray/x2ct", views))
            }
            write.write_case(path, f"case{row}", {"checksums": sums})
            rows.append({"id": f"case{row}", "patient": f"patient{row}", "split": "train", "row": row})
        write.publish(path, rows, [size], ["x2ct"])
        return Store.open(path)

    return make


@pytest.fixture(scope="session")
def stores(make_store: Callable[..., Store]) -> Path:
    """A folder with one store of volumes of 16³; read only."""
    return make_store(SIZE).path.parent


class Trainer:
    """Writes configurations, and trains them in processes of their own."""

    def __init__(self, folder: Path, stores: Path, processes: ForkServerContext) -> None:
        self.folder = folder
        self.stores = stores
        self.processes = processes

    def config(self, name: str = "tiny", **sections: dict[str, Any]) -> Path:
        """A configuration's file: the tiny one with keys of its sections replaced."""
        values: dict[str, Any] = {
            "name": name,
            "run_root": str(self.folder / "runs"),
            "data": {"stores": str(self.stores), "size": SIZE},
            "mapper": {"name": "tiny-conv"},
            "method": {
                "name": "neural-ot",
                "mapper_updates": 1,
                "potential": {"base_channels": 2, "max_channels": 4},
                "features": {"widths": [2, 2, 4, 4], "calibration_batches": 1},
            },
            "optimizer": {"lr_per_sample": 1e-3},
            "training": {
                "steps": 12,
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
            values[section] = {**values.get(section, {}), **keys}
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        return path

    def run(self, name: str = "tiny") -> Run:
        return Run(self.folder / "runs" / name)

    def start(
        self, config: Path, *overrides: str, ranks: int = 1, said: str = "said", **variables: str
    ) -> list[ForkServerProcess]:
        """The processes of one attempt, with further environment variables."""
        meet = str(self.folder / f"rendezvous-{os.urandom(4).hex()}")
        attempt = []
        for rank in range(ranks):
            environment = {"RANK": f"{rank}", "WORLD_SIZE": f"{ranks}", "XR2CT_RENDEZVOUS": meet}
            log = self.folder / f"{said}-{rank}"
            log.unlink(missing_ok=True)
            arguments = ([str(config), *overrides], environment | variables, str(log))
            attempt.append(self.processes.Process(target=train_process.run, args=arguments))
            attempt[-1].start()
        return attempt

    def said(self, rank: int = 0, said: str = "said") -> str:
        """What a rank of the last attempt with that name for its logs has said."""
        return (self.folder / f"{said}-{rank}").read_text(encoding="utf-8")

    def finish(self, config: Path, *overrides: str, ranks: int = 1, expect: int = 0, **variables: str) -> str:
        """Train to the end and return what rank 0 said."""
        attempt = self.start(config, *overrides, ranks=ranks, **variables)
        for process in attempt:
            process.join(300)
        said = [self.said(rank) for rank in range(ranks)]
        assert [p.exitcode for p in attempt] == [expect] * ranks, "\n".join(said)
        return said[0]


@pytest.fixture(scope="session")
def processes() -> Iterator[ForkServerContext]:
    """Forks processes from one that has only imported what training needs, which takes ten seconds."""
    context = multiprocessing.get_context("forkserver")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(HERE))
        patch.setenv("OMP_NUM_THREADS", "1")
        context.set_forkserver_preload(["train_process"])
        forkserver.ensure_running()
    yield context


@pytest.fixture
def trainer(tmp_path: Path, stores: Path, processes: ForkServerContext) -> Trainer:
    return Trainer(tmp_path, stores, processes)
