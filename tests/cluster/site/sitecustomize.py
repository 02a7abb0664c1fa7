"""On PYTHONPATH, lets a configuration name the tests' own networks, on the login side and in jobs.

With TESTS_WITHOUT_MLFLOW, MLflow cannot be imported: DeepSpeed would, needlessly, and take seconds a rank.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

if os.environ.get("TESTS_WITHOUT_MLFLOW"):
    sys.modules["mlflow"] = None  # type: ignore[assignment]
with suppress(ImportError):  # any other Python that a test starts
    import xr2ct.models

    xr2ct.models.__path__.append(str(Path(__file__).resolve().parents[2] / "training" / "networks"))
