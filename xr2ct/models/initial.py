"""Initial weights by name: the same on every rank, whatever was drawn before."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from xr2ct.seeds import derive_seed


@contextmanager
def seeded_weights(seed: int, name: str) -> Iterator[None]:
    """Modules made inside draw their weights from the stream of that name; the global one stays as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, "weights", name))
        yield
