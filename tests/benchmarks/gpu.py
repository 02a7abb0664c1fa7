"""Everything that wants a GPU, in one command of less than ten minutes and one JSON.

    python -m tests.benchmarks.gpu --out gpu.json [--minutes 9] [--training SYSTEM ...]

Correctness first (tests/gpu), then every row of a GPU (`xr2ct bench`), and with the time that is left a
comparison in earnest: each SYSTEM of configs/compare.yaml trained for an equal time on synthetic chests, and
scored. What there was no time for is "not measured". Where there is no GPU it does the same and says so, row
by row; `--scale small` makes the comparison one for two cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from tests.benchmarks.registry import format_row, machine, rows_of
from xr2ct import provenance
from xr2ct.run import Run, write_atomically

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parents[2]
_SCORING_S = 60.0
"""For scoring what was trained, and its report."""


def main(arguments: Sequence[str] | None = None) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    parser = argparse.ArgumentParser(prog="tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--training", nargs="*", default=["ours", "l1"], metavar="SYSTEM")
    parser.add_argument("--patients", type=int, default=40, help="synthetic chests to learn from")
    parser.add_argument("--scale", choices=("paper", "small"), default="paper", help="of the training")
    parser.add_argument("--rows", nargs="*", default=None, metavar="NAME", help="rather than all of a GPU")
    args = parser.parse_args(arguments)
    ends = time.monotonic() + 60 * args.minutes
    told: dict[str, Any] = {"machine": machine(), "versions": provenance.versions()}

    def keep(key: str, value: Any) -> None:
        """On the disk at once: whatever ends this, what was measured stays."""
        told[key] = value
        write_atomically(args.out, json.dumps(told, indent=1) + "\n")

    keep("correctness", correctness(ends - time.monotonic()))
    rows: list[dict[str, Any]] = []
    for row in rows_of(args.rows or ["all"]):
        if row.device == "cuda":
            left = ends - time.monotonic()
            rows.append(row.run() if left > 0 else {"row": row.name, "not_measured": "no time was left"})
            if left > 0:
                log.info("%s", format_row(rows[-1]))
            keep("rows", rows)
    seconds = (ends - time.monotonic()) / max(1, len(args.training)) - _SCORING_S
    keep("training", [train(system, seconds, args.patients, args.scale) for system in args.training])
    return 0


def correctness(seconds: float) -> dict[str, Any]:
    """tests/gpu: how many passed, failed and were skipped, and why each failed."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gpu.xml"
        command = [sys.executable, "-m", "pytest", "-q", str(ROOT / "tests" / "gpu"), f"--junitxml={file}"]
        try:
            subprocess.run(command, cwd=ROOT, timeout=max(1.0, seconds), stdout=sys.stderr, check=False)
        except subprocess.TimeoutExpired:
            return {"not_measured": f"tests/gpu took more than {seconds:.0f} s"}
        suite = next(ElementTree.parse(file).iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = [
        f"{case.get('classname')}.{case.get('name')}: {problem.get('message', '')[:200]}"
        for case in suite.iter("testcase")
        for problem in [*case.iter("failure"), *case.iter("error")]
    ]
    return counts | {"failed": failed}


def train(system: str, seconds: float, patients: int, scale: str) -> dict[str, Any]:
    """A system of configs/compare.yaml trained for so long and scored: validation and test figures."""
    if seconds < 30:
        return {"system": system, "not_measured": f"{max(seconds, 0):.0f} s were left for it"}
    with tempfile.TemporaryDirectory() as folder:
        phantoms = {"lidc-idri": patients, "covid-19-ny-sbu": 2, "midrc-ricord-1b": 2}
        overrides = [
            f"system={system}",
            f"scale={scale}",
            f"run_root={folder}/runs",
            f"data.stores={folder}/stores",
            f"data.phantoms={json.dumps(phantoms, separators=(',', ':'))}",
        ]
        command = [sys.executable, "-m", "xr2ct.cli", "study", str(ROOT / "configs" / "compare.yaml")]
        command += [*overrides, "--minutes", f"{seconds / 60:g}", "--out", f"{folder}/report"]
        began = time.monotonic()
        done = subprocess.run(command, cwd=ROOT, stdout=sys.stderr, check=False)
        told: dict[str, Any] = {"system": system, "patients": patients, "exit_code": done.returncode}
        told["seconds_in_all"] = time.monotonic() - began
        for path in sorted(Path(folder, "runs").glob("*/config.yaml")):
            run = Run(path.parent)
            records = list(run.metrics())
            told |= {
                "outer_steps": len(records),
                "samples": sum(r["samples"] for r in records),
                "training_seconds": sum(r["seconds"] for r in records),
                "losses_first": records[0] if records else None,
                "losses_last": records[-1] if records else None,
                "leaderboard": _leaderboard(run),
            }
        return told


def _leaderboard(run: Run) -> list[dict[str, Any]]:
    from xr2ct.evaluation.leaderboard import read_leaderboard

    kept = ("step", "cohort", "split", "patients", "honest/psnr", "honest/ssim", "honest/mae_hu")
    return [{key: row[key] for key in kept if key in row} for row in read_leaderboard(run)]


if __name__ == "__main__":
    sys.exit(main())
