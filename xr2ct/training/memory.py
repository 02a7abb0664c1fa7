"""How much memory this process's training has taken so far."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

import torch

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class PeakMemory:
    """From its making on: of tensors on a GPU, or by how much the process grew on a CPU."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            return
        with suppress(OSError):  # where it is not allowed, an earlier peak may stand for this one
            _CLEAR.write_text("5", encoding="ascii")
        self._before = _kib("VmRSS")

    def peak_bytes(self) -> int:
        """The most so far; 0 where the system does not say."""
        if self._device.type == "cuda":
            return int(torch.cuda.max_memory_allocated(self._device))
        return max(0, _kib("VmHWM") - self._before) * 1024


def _kib(key: str) -> int:
    """A line of this process's /proc/self/status."""
    with suppress(OSError):
        if found := re.search(rf"^{key}:\s+(\d+) kB$", _STATUS.read_text(encoding="ascii"), re.MULTILINE):
            return int(found[1])
    return 0
