"""What reconstructions are held against, made once for all: masks, HU scale, the X-rays that came in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from xr2ct.cohorts.lungs import body_and_lung_masks
from xr2ct.config import Data
from xr2ct.evaluation.metrics import REGIONS, Reference
from xr2ct.methods.base import Batch
from xr2ct.store import Case, Store
from xr2ct.window import HuWindow


def unit_window(hu: np.ndarray, data: Data) -> HuWindow:
    """The HU that are 0 and 1 for a volume: the experiment's window, or the volume's own range."""
    if data.scaling == "window":
        return HuWindow(*data.hu_window)
    return HuWindow(float(hu.min()), float(hu.max()))


def region_masks(hu: np.ndarray, spacing_mm: tuple[float, float, float]) -> dict[str, np.ndarray]:
    """Booleans (z, y, x) by region, from the true HU."""
    return dict(zip(REGIONS, body_and_lung_masks(hu, spacing_mm), strict=True))


@dataclass(frozen=True)
class Truth:
    """One case."""

    case: str
    unit: Tensor
    """(z, y, x)."""
    window: HuWindow
    masks: Mapping[str, Tensor]
    line_integrals: Tensor | None
    """(view, row, col) as stored; None where re-projection is off."""
    voxel_mm: float
    """Side of a voxel."""

    @cached_property
    def reference(self) -> Reference:
        """What every metric of every reconstruction needs of it."""
        return Reference(self.unit, self.window.width, self.masks, (self.voxel_mm,) * 3)


def read_truths(
    store: Store, cases: Mapping[str, Case], batch: Batch, data: Data, *, reproject: bool
) -> list[Truth]:
    """The truths of a batch of the loader, in its order and on its device."""
    device = batch.ct.device
    spacing = store.cube_mm / data.size
    truths = []
    for unit, name in zip(batch.ct[:, 0], batch.cases, strict=True):
        hu = store.volume(cases[name], data.size)
        masks = region_masks(hu, (spacing,) * 3)
        stored = store.xray(cases[name], data.geometry, data.views) if reproject else None
        truths.append(
            Truth(
                name,
                unit,
                unit_window(hu, data),
                {region: torch.from_numpy(mask).to(device) for region, mask in masks.items()},
                None if stored is None else torch.from_numpy(stored).to(device),
                spacing,
            )
        )
    return truths
