"""RUN/metrics.jsonl: one object an outer step, flushed as it is written, never a duplicate step."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress

from xr2ct.errors import Superseded, WorkFailed
from xr2ct.run import Run
from xr2ct.training.fence import Fence


class MetricsLog:
    """Appends to a run's metrics from an outer step on.

    Each object holds `step` (outer steps done), `seconds` (of this step, a checkpoint's writing left out),
    `samples` (volumes learnt from in this step, over all ranks), `memory_bytes` (the most that rank 0 has
    taken since it began: `memory.PeakMemory`), ``loss/NAME`` and ``lr/NETWORK``.

    Raises `WorkFailed` where the file cannot be written, and `Superseded` where it is another's by now.
    """

    def __init__(self, run: Run, step: int, fence: Fence) -> None:
        """Cuts off, whole or not at all, what was written after `step`: those steps are run again.

        The file is a new one, and is never opened by its name again: an incarnation that has been superseded
        goes on in a file that has no name any more, not in its successor's.
        """
        self._run, self._fence = run, fence
        kept = [record for record in run.metrics() if record["step"] <= step]
        partial = fence.partial(run.metrics_file)
        try:
            self._file = partial.open("w", encoding="utf-8")
            self._append("".join(_line(record) for record in kept))
            os.fsync(self._file.fileno())
            fence.commit(run.metrics_file)
        except (OSError, Superseded) as error:
            with suppress(OSError):
                partial.unlink()
            raise self._failure(error) from error

    def write(self, record: Mapping[str, float]) -> None:
        """Add one step. Every figure is finite: a loss that is not has stopped the run before."""
        try:
            self._append(_line(record))
        except OSError as error:
            raise self._failure(error) from error

    def sync(self) -> None:
        """To the disk itself, so that no checkpoint is newer than the metrics before it."""
        try:
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._failure(error) from error

    def close(self) -> None:
        with suppress(OSError):  # of what could not be written, and was said so
            self._file.close()

    def _append(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def _failure(self, error: Exception) -> WorkFailed:
        if self._fence.superseded():
            return self._fence.superseded_by()
        return WorkFailed(f"{self._run.metrics_file}: cannot be written: {error}")


def _line(record: Mapping[str, float]) -> str:
    return json.dumps(record, allow_nan=False) + "\n"
