"""Every row by name, and the run of some of them."""

from __future__ import annotations

import importlib
import logging
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.harness import Row
from xr2ct import provenance
from xr2ct.errors import UserError, nearest

log = logging.getLogger(__name__)

MODULES = ("projector", "loader", "mapper", "sinkhorn", "step", "sweep", "ingest")
"""Files beside this one that have `ROWS`; each is a name for all of its rows too."""


def rows_of(names: Sequence[str]) -> list[Row]:
    """The rows that names stand for: a row's own, a file's, or `all`; `UserError` with the nearest."""
    by_module = {m: list(importlib.import_module(f"tests.benchmarks.{m}").ROWS) for m in MODULES}
    known = {row.name: [row] for rows in by_module.values() for row in rows} | by_module
    known["all"] = [row for rows in by_module.values() for row in rows]
    chosen: dict[str, Row] = {}
    for name in names:
        if name not in known:
            raise UserError(f"bench {name}: {nearest(name, known)}")
        chosen |= {row.name: row for row in known[name]}
    return list(chosen.values())


def run_rows(rows: Sequence[Row]) -> dict[str, Any]:
    """Measure them one after the other; what `xr2ct bench --json` prints."""
    measured = []
    for row in rows:
        measured.append(row.run())
        log.info("%s", format_row(measured[-1]))
    return {"machine": machine(), "versions": provenance.versions(), "rows": measured}


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    told: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "load": os.getloadavg()[0],
        "device": None,
        "commit": provenance.commit(),
    }
    if torch.cuda.is_available():
        card = torch.cuda.get_device_properties(0)
        told |= {
            "device": card.name,
            "device_memory_gib": card.total_memory / 2**30,
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
        }
    return told


def format_row(row: dict[str, Any]) -> str:
    """One line."""
    if "not_measured" in row:
        return f"{row['row']:<28}{'not measured':>14}   goal {row['goal']:<8}{row['not_measured']}"
    mark = "" if row["reached"] else "  not reached"
    return (
        f"{row['row']:<28}{row['ratio']:>12.3g} ×   goal {row['goal']:<8}"
        f"{row['ours']:.4g} against {row['peers']:.4g} {row['unit']} ({row['peer']}){mark}"
    )


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
