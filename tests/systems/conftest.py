"""A store of synthetic chests at 16³, with X-rays from eight sides, and every split."""

from __future__ import annotations

from multiprocessing.context import ForkServerContext
from pathlib import Path

import pytest
from synthetic_store import write_store
from trainer import Trainer, processes

from xr2ct.projection.geometry import EIGHT_ANGLES

__all__ = ["processes"]


@pytest.fixture(scope="session")
def chests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the one store; read only."""
    folder = tmp_path_factory.mktemp("stores")
    write_store(folder, ("train", "train", "train", "val", "test"), size=16, angles=EIGHT_ANGLES, pixels=32)
    return folder


@pytest.fixture
def trainer(tmp_path: Path, chests: Path, processes: ForkServerContext) -> Trainer:
    return Trainer(tmp_path, chests, processes)
