"""Trains configurations in processes of their own, as `xr2ct train` does."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any

import pytest
import train_process
import yaml
from tiny import tiny_experiment

from xr2ct.run import Run

HERE = Path(__file__).parent


class Trainer:
    """Writes configurations, and trains them in processes of their own."""

    def __init__(self, folder: Path, stores: Path, processes: ForkServerContext) -> None:
        self.folder = folder
        self.stores = stores
        self.processes = processes

    def config(self, name: str = "tiny", **sections: dict[str, Any]) -> Path:
        """A configuration's file: the tiny one with keys of its sections, or a component, replaced."""
        values = tiny_experiment(name, self.folder / "runs", self.stores, sections)
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
