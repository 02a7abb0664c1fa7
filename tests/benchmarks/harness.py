"""Ratios against named peers: both in one process and one run, in turn, and the median of the pairs' ratios.

On a shared machine seconds drift by a factor; two things measured right after each other drift together. So a
figure is a ratio, and the seconds beside it only tell its scale.
"""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import torch


class NotMeasured(Exception):
    """Why a row has no figure here: a peer or a device that is not there."""


@dataclass(frozen=True)
class Measured:
    """What a row's two sides took, pair by pair."""

    ours: Sequence[float]
    peer: Sequence[float]
    unit: str = "s"
    detail: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else is to be kept of the run: sizes, errors against the peer's result."""


@dataclass(frozen=True)
class Row:
    """One line of the table: what is compared with whom, and what is to be reached."""

    name: str
    what: str
    peer: str
    ratio: Literal["ours/peer", "peer/ours"]
    """`ours/peer` for a share of the peer's time or bytes, `peer/ours` for times faster."""
    goal: float
    """At most this for `ours/peer`, at least this for `peer/ours`, unless `at_least` says otherwise."""
    measure: Callable[[], Measured]
    """Raises `NotMeasured` where its peer is not there."""
    device: Literal["cpu", "cuda"] = "cpu"
    at_least: bool | None = None

    @property
    def lower_is_better(self) -> bool:
        return self.ratio == "ours/peer" if self.at_least is None else not self.at_least

    def run(self) -> dict[str, Any]:
        """Measure it; the row as JSON keeps it."""
        sign = "≤" if self.lower_is_better else "≥"
        told: dict[str, Any] = {
            "row": self.name,
            "what": self.what,
            "peer": self.peer,
            "device": self.device,
            "ratio_of": self.ratio,
            "goal": f"{sign} {self.goal:g}",
        }
        try:
            if self.device == "cuda" and not torch.cuda.is_available():
                raise NotMeasured("no CUDA device here")
            measured = self.measure()
        except NotMeasured as why:
            return told | {"not_measured": str(why)}
        finally:
            gc.collect()
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
        pairs = list(zip(measured.ours, measured.peer, strict=True))
        ratios = [a / b if self.ratio == "ours/peer" else b / a for a, b in pairs]
        ratio = statistics.median(ratios)
        return told | {
            "ratio": ratio,
            "reached": ratio <= self.goal if self.lower_is_better else ratio >= self.goal,
            "ratios": ratios,
            "ours": statistics.median(measured.ours),
            "peers": statistics.median(measured.peer),
            "unit": measured.unit,
            **measured.detail,
        }


def interleaved(
    ours: Callable[[], object], peer: Callable[[], object], rounds: int = 5, warmup: int = 1, **detail: Any
) -> Measured:
    """Seconds of each, A B A B …, after `warmup` pairs that are not counted."""
    found: tuple[list[float], list[float]] = ([], [])
    for turn in range(warmup + rounds):
        for side, call in zip(found, (ours, peer), strict=True):
            seconds = seconds_of(call)
            if turn >= warmup:
                side.append(seconds)
    return Measured(*found, detail=detail)


def seconds_of(call: Callable[[], object]) -> float:
    """Of one call, until the device is done with it."""
    _synchronise()
    began = time.perf_counter()
    call()
    _synchronise()
    return time.perf_counter() - began


def _synchronise() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
