"""A source that several tests ingest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chest_volumes import chest, write_mha


@pytest.fixture(scope="session")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients, and one who has no lungs."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(12):
        write_mha(folder / f"SYN-{number:04d}.mha", chest(number))
    write_mha(folder / "SYN-9999.mha", np.full((44, 40, 52), 40, np.int16))
    return folder
