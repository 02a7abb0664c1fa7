"""What the jobs of one ingest began and how it ended, line by line, so that nobody does it twice.

A process writes a file of its own. An attempt that was begun and never ended is one that its process died at,
unless it said before that it was told to stop.
"""

from __future__ import annotations

import json
import os
import uuid
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from xr2ct.cohorts.refused import Refusal
from xr2ct.ingest.task import Outcome, Task

DIED = "its job died at it"


class Journal:
    """One process's file. Each line is written by one call, so that a signal cannot tear it."""

    def __init__(self, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.{uuid.uuid4().hex}.jsonl"
        self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)

    def begun(self, task: Task) -> None:
        self._write({"begun": task.index})

    def ended(self, task: Task, outcome: Outcome) -> None:
        self._write({"ended": task.index, "outcome": asdict(outcome)})

    def stopped(self) -> None:
        """What was begun and has not ended is nobody's fault."""
        self._write({"stopped": True})

    def _write(self, line: dict[str, Any]) -> None:
        os.write(self._file, (json.dumps(line) + "\n").encode())


@dataclass
class History:
    """Of one task, over all processes."""

    deaths: int = 0
    """Processes that died while they were at it."""
    outcome: Outcome | None = None
    """The one that counts: a final one where there is any."""

    @property
    def tries(self) -> int:
        """Attempts that failed."""
        return self.deaths + (self.outcome is not None and self.outcome.failed)

    @property
    def settled(self) -> Outcome | None:
        """How it ended for good; None where it is to be done, perhaps again."""
        if self.outcome is not None and not self.outcome.failed:
            return self.outcome
        if self.tries > 1:
            return Outcome(f"{DIED}, twice")
        return None


def read(folder: Path) -> dict[int, History]:
    """By row, what all the journals of a folder say; only of processes that have ended is it sure."""
    found: dict[int, History] = defaultdict(History)
    for file in sorted(folder.glob("*.jsonl")):
        open_: set[int] = set()
        for line in _lines(file):
            if "begun" in line:
                open_.add(line["begun"])
            elif "ended" in line:
                open_.discard(line["ended"])
                outcome = _outcome(line["outcome"])
                before = found[line["ended"]].outcome
                if before is None or before.failed:
                    found[line["ended"]].outcome = outcome
            else:
                open_.clear()
        for index in open_:
            found[index].deaths += 1
    return found


def _lines(file: Path) -> Iterator[dict[str, Any]]:
    """Whole lines; a process may have died in the midst of the last."""
    for line in file.read_text(encoding="utf-8").splitlines(keepends=True):
        if line.endswith("\n"):
            yield json.loads(line)


def _outcome(told: dict[str, Any]) -> Outcome:
    refusals = tuple(Refusal(**one) for one in told.pop("radiographs"))
    lists = {key: tuple(value) for key, value in told.items() if isinstance(value, list)}
    return Outcome(**{**told, **lists, "radiographs": refusals})
