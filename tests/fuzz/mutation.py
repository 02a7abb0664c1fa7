"""A DICOM series on disk that is to be spoilt, and the table of what can be done to it.

Each mutation says what it may change in a volume that is accepted.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from base import SLICES
from declared import Change
from pydicom.dataset import FileDataset

pydicom.config.settings.reading_validation_mode = pydicom.config.IGNORE
pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE

NOTHING = Change()
PIXELS = b"\xe0\x7f\x10\x00"


@dataclass
class Series:
    """A base series that is to be spoilt."""

    folder: Path
    files: list[Path]
    """From the feet up."""
    rng: np.random.Generator

    def some(self) -> int:
        """A slice's place, often one at an end."""
        return int(self.rng.choice([0, SLICES - 1, *range(SLICES)]))

    def inner(self) -> int:
        return int(self.rng.integers(4, SLICES - 4))

    def edit(self, index: int, change: Callable[[FileDataset], None]) -> None:
        data = pydicom.dcmread(self.files[index])
        change(data)
        changed = io.BytesIO()
        try:
            data.save_as(changed, enforce_file_format=False)
        except Exception:  # what pydicom cannot write leaves the slice as it was
            return
        self.files[index].write_bytes(changed.getvalue())


Mutation = Callable[[Series], Change]
MUTATIONS: dict[str, Mutation] = {}


def mutation(apply: Mutation) -> Mutation:
    """Enter a mutation under its name."""
    MUTATIONS[apply.__name__.strip("_").replace("_", " ")] = apply
    return apply


def lost(*slices: int) -> Change:
    """Those may have other pixels, or be gone where they lie at an end."""
    return Change(pixels=frozenset(slices), gone=frozenset(slices) & {0, SLICES - 1})
