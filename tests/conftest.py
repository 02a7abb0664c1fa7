"""Shared by every test: where real data lies, and threads kept to what two cores can bear."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")

CLUSTER = Path(__file__).with_name("cluster")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Tests on a real Slurm run only when named, `pytest tests/cluster`: they take half an hour."""
    if collection_path != CLUSTER:
        return None
    asked = [(config.invocation_params.dir / arg.split("::")[0]).resolve() for arg in config.args]
    return None if any(path.is_relative_to(CLUSTER) for path in asked) else True


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CT and X-rays that XR2CT_REAL_DATA names; skips where it is unset."""
    folder = os.environ.get("XR2CT_REAL_DATA")
    if not folder:
        pytest.skip("XR2CT_REAL_DATA is not set: no real CT to test with")
    return Path(folder)
