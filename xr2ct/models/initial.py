"""Initial weights: drawn by name, the same on every rank, whatever was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from xr2ct.seeds import derive_seed


@contextmanager
def seeded_weights(seed: int, name: str) -> Iterator[None]:
    """Modules made inside draw their weights from the stream of that name; the global one stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", name))
        yield


def normal_weights(module: nn.Module) -> None:
    """Weights of convolutions and linear layers from N(0, 0.02), biases 0; for `Module.apply`."""
    if isinstance(module, nn.Conv2d | nn.Conv3d | nn.ConvTranspose3d | nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
