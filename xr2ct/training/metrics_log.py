"""RUN/metrics.jsonl: one object an outer step, flushed as it is written, never a duplicate step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

from xr2ct.run import Run, write_atomically


class MetricsLog:
    """Appends to a run's metrics from an outer step on.

    Each object holds `step` (outer steps done), `seconds` (of this step, a checkpoint's writing left out),
    `samples` (volumes learnt from in this step, over all ranks), ``loss/NAME`` and ``lr/NETWORK``.
    """

    def __init__(self, run: Run, step: int) -> None:
        """Cuts off, whole or not at all, what was written after `step`: those steps are run again."""
        kept = [record for record in run.metrics() if record["step"] <= step]
        write_atomically(run.metrics_file, "".join(_line(record) for record in kept))
        self._file = run.metrics_file.open("a", encoding="utf-8")

    def write(self, record: Mapping[str, float]) -> None:
        """Add one step. Every figure is finite: a loss that is not has stopped the run before."""
        self._file.write(_line(record))
        self._file.flush()

    def sync(self) -> None:
        """To the disk itself, so that no checkpoint is newer than the metrics before it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()


def _line(record: Mapping[str, float]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
