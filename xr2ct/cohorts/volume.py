"""A chest CT between its files and its canonical cube."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class NativeVolume:
    """One scan on its own grid, in patient axes."""

    hu: np.ndarray
    """(z, y, x) int16 or float32 HU: z feet to head, y front to back, x right to left of the patient."""
    spacing_mm: tuple[float, float, float]
    """z, y, x."""
    attributes: dict[str, Any]
    """Kernel, contrast, thickness_mm, manufacturer …; nothing that identifies a patient."""
