"""What needs no training: the mean chest, and the nearest training patient by X-ray.

A mapper that is not above both has learnt nothing of the patient. The nearest patient is the one with the
smallest L2 distance between views scaled as the mapper sees them, each averaged down to 32² pixels, over all
of the run's views.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xr2ct.config import Data
from xr2ct.evaluation.truth import unit_window
from xr2ct.loading.loader import sequential
from xr2ct.methods.base import Batch
from xr2ct.store import Case, Store

MEAN = "prior-mean"
NEAREST = "prior-nearest"

THUMBNAIL = 32
"""Pixels along a side of the views that are compared."""


@dataclass(frozen=True)
class TrainingSet:
    """What both priors know of the training cases."""

    store: Store
    cases: Sequence[Case]
    data: Data
    mean: Tensor
    """(z, y, x) mean volume on the unit interval."""
    thumbnails: Tensor
    """(case, view · 32 · 32) float64."""

    @classmethod
    def read(
        cls, store: Store, cases: Sequence[Case], data: Data, batch: int, device: torch.device
    ) -> TrainingSet:
        """One pass over the training cases, without augmentation."""
        total = torch.zeros((data.size,) * 3, dtype=torch.float64, device=device)
        thumbnails = []
        for part in sequential(store, cases, data, batch=batch, device=device):
            total += part.ct[:, 0].sum(dim=0, dtype=torch.float64)
            thumbnails.append(_thumbnails(part.views))
        return cls(store, cases, data, (total / len(cases)).float(), torch.cat(thumbnails))

    def mean_chest(self, batch: Batch) -> Tensor:
        """The same volume (b, 1, z, y, x) for everybody."""
        return self.mean.expand(len(batch.cases), 1, *self.mean.shape)

    def nearest_chest(self, batch: Batch) -> Tensor:
        """Of each patient the volume (b, 1, z, y, x) of the training case whose X-rays are nearest."""
        volumes = [self.store.volume(self.cases[i], self.data.size) for i in self.nearest(batch.views)]
        units = [unit_window(hu, self.data).to_unit(hu.astype(np.float32)) for hu in volumes]
        return torch.from_numpy(np.stack(units)[:, None]).to(self.mean.device)

    def nearest(self, views: Tensor) -> list[int]:
        """Index of the nearest training case of each (b, view, row, col); the first of equals."""
        asked = _thumbnails(views)
        return [int((self.thumbnails - one).square().sum(dim=1).argmin()) for one in asked]


def _thumbnails(views: Tensor) -> Tensor:
    return F.adaptive_avg_pool2d(views.double(), THUMBNAIL).flatten(1)
