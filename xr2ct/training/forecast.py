"""RUN/cost.json: what the summary says that this run takes, beside what it does take."""

from __future__ import annotations

import json
import logging
import os
import statistics
import subprocess
import sys
from collections import deque
from collections.abc import Mapping
from typing import Any

import torch

from xr2ct.run import Run
from xr2ct.training.memory import PeakMemory
from xr2ct.training.state import TrainingState

log = logging.getLogger(__name__)

_RECENT = 50
"""Outer steps whose median is the speed."""
_WORTH_S = 60.0
"""Of training after which a prediction, which takes a core for some seconds, is worth its while."""
_CARDS = {
    ("H200",): "h200-141gb", ("H100",): "h100-80gb", ("A100", "80GB"): "a100-80gb", ("A100",): "a100-40gb",
    ("V100", "32GB"): "v100-32gb", ("L40S",): "l40s",
}  # fmt: skip
"""Words in a card's name, and the summary's device."""


class Forecast:
    """On rank 0: told of every step, it writes the file anew with each checkpoint.

    The prediction is another process's work, beside the training: networks made here would be part of the
    memory that is measured, and would draw from this run's random numbers.
    """

    def __init__(self, run: Run, state: TrainingState, memory: PeakMemory) -> None:
        """memory: since before the networks were built."""
        self._run, self._fence, self._memory = run, state.fence, memory
        device, ranks = state.ranks.device, state.ranks.world_size
        self._card = torch.cuda.get_device_name(device) if device.type == "cuda" else "this CPU"
        self._ranks, self._zero_stage = ranks, state.experiment.training.zero_stage
        self._seconds: deque[float] = deque(maxlen=_RECENT)
        self._trained_s = 0.0
        self._asked = False
        self._work: subprocess.Popen[str] | None = None
        self._predicted: Mapping[str, Any] | None = None
        earlier = run.cost()
        if earlier is not None and (earlier["device"], earlier["ranks"]) == (self._card, ranks):
            self._predicted = earlier["predicted"]

    def step(self, seconds: float) -> int:
        """Told of an outer step; the most bytes of memory so far."""
        self._seconds.append(seconds)
        self._trained_s += seconds
        if self._trained_s >= _WORTH_S and self._predicted is None and not self._asked:
            self._asked = True
            self._work = self._start()
        return self._memory.peak_bytes()

    def report(self) -> None:
        """Write the file, and say how far off the prediction was, as far as both are known."""
        if not self._seconds:
            return
        measured = {
            "memory_bytes": self._memory.peak_bytes(),
            "step_seconds": statistics.median(self._seconds),
        }
        self._take()
        told: dict[str, Any] = {"device": self._card, "ranks": self._ranks}
        told |= {"measured": measured, "predicted": self._predicted, "off_percent": None}
        if self._predicted is not None:
            off = {k: 100 * (self._predicted[k] / m - 1) for k, m in measured.items() if m}
            told["off_percent"] = off
            log.info("%s: %s", self._run.path, _said(measured, self._predicted, off))
        try:
            self._fence.write(self._run.cost_file, json.dumps(told, indent=1) + "\n")
        except OSError as error:  # training does not end for it
            log.warning("%s: cannot be written: %s", self._run.cost_file, error)

    def close(self) -> None:
        if self._work is not None:
            self._work.kill()
            self._work.communicate()

    def _start(self) -> subprocess.Popen[str]:
        words = self._card.replace("-", " ").split()
        known = (d for key, d in _CARDS.items() if all(any(k in w for w in words) for k in key))
        command = [sys.executable, "-m", "xr2ct.cli", "summary", str(self._run.config_file), "--json"]
        command += ["--device", next(known, "here"), "--ranks", str(self._ranks)]
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )

    def _take(self) -> None:
        """The prediction, where it is ready by now; without one, where it failed."""
        if self._work is None or self._work.poll() is None:
            return
        work, self._work = self._work, None
        out, _ = work.communicate()
        if work.returncode:
            log.warning("%s: no prediction: xr2ct summary %s says why", self._run.path, self._run.config_file)
            return
        told = json.loads(out)
        row = told["memory"][0]
        self._predicted = {
            "memory_bytes": row["bytes_by_zero_stage"][self._zero_stage],
            "step_seconds": row["step_seconds"],
            "extrapolated": not told["device"]["measured"],
        }


def _said(measured: Mapping[str, float], predicted: Mapping[str, float], off: Mapping[str, float]) -> str:
    memory, seconds = measured["memory_bytes"] / 1e9, measured["step_seconds"]
    return (
        f"memory a rank {memory:.2f} GB, predicted {predicted['memory_bytes'] / 1e9:.2f} "
        f"({off.get('memory_bytes', 0):+.0f} %); a step {seconds:.2f} s, predicted "
        f"{predicted['step_seconds']:.2f} ({off['step_seconds']:+.0f} %)"
    )
