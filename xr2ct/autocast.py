"""Where a computation keeps the precision that it is given."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def without_autocast(near: Tensor) -> AbstractContextManager[object]:
    """A context in which operations on the device of `near` compute in the precision of what they are given.

    Tensors without data ("meta") have no autocast, and torch refuses even to turn it off there.
    """
    device = near.device.type
    return torch.autocast(device, enabled=False) if torch.amp.is_autocast_available(device) else nullcontext()
