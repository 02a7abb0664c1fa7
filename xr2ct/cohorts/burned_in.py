"""Text drawn into the pixels of a radiograph."""

from __future__ import annotations

import numpy as np


def burned_in_text(pixels: np.ndarray) -> str:
    return ""
