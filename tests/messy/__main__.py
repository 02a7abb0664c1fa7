"""`python -m tests.messy --out DIR` makes a messy tree; `--check DIR` plans and ingests it, and compares.

Exit codes: 0 as planted, 1 something is not, 2 a wrong request.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

from xr2ct.errors import UserError

from .check import Difference, check_cohort
from .tree import make_tree
from .truth import Truth, read_truth


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.messy", description=__doc__)
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument("--out", type=Path, help="empty folder to write seven messy cohorts to")
    what.add_argument("--check", type=Path, help="folder that was written so")
    parser.add_argument("--patients", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--stores", type=Path, help="where the check's stores go; a temporary folder if not given"
    )
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    args = parser.parse_args()
    try:
        if args.out:
            truth = make_tree(args.out, args.patients, args.seed, args.workers)
            print(f"{args.out}: {args.patients} patients, {len(truth)} lines planted")
            return 0
        if args.stores:
            return _check(args.check, args.stores, args.workers)
        with tempfile.TemporaryDirectory() as folder:
            return _check(args.check, Path(folder), args.workers)
    except UserError as error:
        print(error, file=sys.stderr)
        return 2


def _check(folder: Path, stores: Path, workers: int) -> int:
    truth = read_truth(folder)
    differences: list[Difference] = []
    for cohort in dict.fromkeys(line.cohort for line in truth):
        began = time.monotonic()
        found, report = check_cohort(folder, cohort, truth, stores, workers)
        differences += found
        seconds = time.monotonic() - began
        print(f"{cohort}: {len(report.kept)} cases kept, {len(found)} differences, {seconds:.0f} s")
    print(_table(truth, differences))
    for difference in differences:
        print(difference)
    return 1 if differences else 0


def _table(truth: list[Truth], differences: list[Difference]) -> str:
    """Agreement by mess, over the lines planted."""
    planted = Counter(line.mess for line in truth)
    wrong: dict[str, set[Truth]] = defaultdict(set)
    for difference in differences:
        wrong[difference.truth.mess].add(difference.truth)
    rows = [f"{mess:28} {count - len(wrong[mess]):4} of {count:4}" for mess, count in sorted(planted.items())]
    total = sum(planted.values())
    return "\n".join([*rows, f"{'all':28} {total - sum(map(len, wrong.values())):4} of {total:4}"])


if __name__ == "__main__":
    sys.exit(main())
