"""One check of `xr2ct doctor` in one rank: what it may find, and how its outcome is noted."""

from __future__ import annotations

import json
import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from launch.profiles import Profile
from xr2ct.errors import first_line

log = logging.getLogger(__name__)

LIMIT_S = 150.0
"""For one check. Importing torch and DeepSpeed from a cold network disk takes half of it."""
SIGNAL_WAIT_S = 120.0


class Failed(Exception):
    """What was found instead of what training needs."""


class Skipped(Exception):
    """Why a check does not apply here."""


@dataclass
class Rank:
    """This process among those of doctor's job."""

    profile: Profile
    folder: Path
    """Where outcomes go: on the run root, seen by all ranks."""
    rank: int
    world_size: int
    node: str
    group: Any = None
    """xr2ct.training.distributed.Ranks once they have met."""
    signals: list[str] = field(default_factory=list)

    def record(self, check: str, outcome: str, told: str) -> None:
        line = {"check": check, "outcome": outcome, "told": told, "rank": self.rank, "node": self.node}
        with (self.folder / f"rank-{self.rank}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        log.info("%-8s %s: %s", outcome, check, told)


def run_check(rank: Rank, name: str, check: Callable[[Rank], str], limit_s: float = LIMIT_S) -> None:
    """Do one check and note its outcome; one that does not end in time ends the process with it."""
    rank.record(name, "BEGUN", "")

    def give_up() -> None:
        rank.record(name, "FAILED", f"no end after {limit_s:.0f} s")
        os._exit(1)

    patience = threading.Timer(SIGNAL_WAIT_S + limit_s if name == "signal" else limit_s, give_up)
    patience.daemon = True
    patience.start()
    try:
        outcome, told = "OK", check(rank)
    except Skipped as reason:
        outcome, told = "SKIPPED", str(reason)
    except Failed as reason:
        outcome, told = "FAILED", str(reason)
    except Exception as error:  # whatever a broken installation may raise is the outcome
        log.info("%s", name, exc_info=True)
        outcome, told = "FAILED", f"{type(error).__name__}: {first_line(error)}"
    patience.cancel()
    rank.record(name, outcome, told)
