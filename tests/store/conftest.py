"""A source that several tests ingest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from chest_volumes import chest, spoil, write_dicom, write_mha


@pytest.fixture(scope="session")
def patients(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve patients, one who has no lungs, and one of whose slices is damaged."""
    folder = tmp_path_factory.mktemp("source")
    for number in range(12):
        write_mha(folder / f"SYN-{number:04d}.mha", chest(number))
    write_mha(folder / "SYN-8888.mha", np.full((44, 40, 52), 40, np.int16))
    spoil(write_dicom(folder / "SYN-9999", chest(99), "SYN-9999", "1.2.9999")[2])
    return folder
