"""Shared by every test: where real data lies, and threads kept to what two cores can bear."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("DS_ACCELERATOR", "cpu")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of real CT and X-rays that XR2CT_REAL_DATA names; skips where it is unset."""
    folder = os.environ.get("XR2CT_REAL_DATA")
    if not folder:
        pytest.skip("XR2CT_REAL_DATA is not set: no real CT to test with")
    return Path(folder)
