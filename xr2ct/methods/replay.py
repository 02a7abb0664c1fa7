"""The random draws of a pass forward, made alike in a second one: dropout's masks above all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


class Draws:
    """Where torch's generators stand now: the CPU's, and a GPU's where `near` lies on one."""

    def __init__(self, near: Tensor) -> None:
        self._devices = [near.device] if near.is_cuda else []
        self._states = [torch.cuda.get_rng_state(device) for device in self._devices]
        self._cpu = torch.get_rng_state()

    @contextmanager
    def again(self) -> Iterator[None]:
        """Draw inside as from then on; afterwards the generators stand where they stood before it."""
        with torch.random.fork_rng(devices=self._devices):
            torch.set_rng_state(self._cpu)
            for device, state in zip(self._devices, self._states, strict=True):
                torch.cuda.set_rng_state(state, device)
            yield
