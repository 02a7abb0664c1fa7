"""How far apart samples lie: what a blur is to be read against."""

from __future__ import annotations

import torch
from torch import Tensor


def spread(points: Tensor) -> Tensor:
    """Mean Euclidean distance between two of `points` (b, features), over all pairs; a scalar, fp64.

    It is in the units of features, as a Sinkhorn divergence's blur is: a blur well below it sees each sample
    alone, one well above it only their mean. NaN where there are fewer than two points.
    """
    return torch.pdist(points.detach().double()).mean()
