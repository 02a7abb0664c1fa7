"""On PYTHONPATH, lets a configuration name the tests' own networks, on the login side and in jobs."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

with suppress(ImportError):  # any other Python that a test starts
    import xr2ct.models

    xr2ct.models.__path__.append(str(Path(__file__).resolve().parents[2] / "training" / "networks"))
