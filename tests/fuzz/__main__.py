"""python -m tests.fuzz --mutants 10000 --seed 0 --workers 2 --json out.json

Mutants of small DICOM series and volume files through the scan and the reader. Prints by mutation how many
were refused, were taken and equal the base, were taken and differ as the mutation says, or violate what
they should; exit code 1 where any does. `--only N` runs one mutant in this process.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter, defaultdict
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from isolated import LIMIT_S, run_all
from mutants import Mutant, Verdict, run

RESULTS = ("refused", "equal", "as declared", "VIOLATION")


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[2])
    parser.add_argument("--mutants", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", type=int)
    arguments = parser.parse_args()
    if arguments.only is not None:
        print(run(Mutant(arguments.seed, arguments.only)))
        return 0
    numbers = range(arguments.mutants)
    found = list(run_all((Mutant(arguments.seed, n) for n in numbers), arguments.workers))
    if arguments.json:
        lines = [{"number": mutant.number, **asdict(verdict)} for mutant, verdict in found]
        arguments.json.write_text(json.dumps({"seed": arguments.seed, "mutants": lines}, indent=0))
    return _report(found)


def _report(found: list[tuple[Mutant, Verdict]]) -> int:
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for _, verdict in found:
        counts[verdict.mutation][verdict.result] += 1
    width = max(map(len, counts))
    print(f"{'mutation':{width}}", *(f"{result:>11}" for result in RESULTS))
    for name, by_result in counts.items():
        print(f"{name:{width}}", *(f"{by_result[result]:11}" for result in RESULTS))
    total = Counter(verdict.result for _, verdict in found)
    print(f"{'all':{width}}", *(f"{total[result]:11}" for result in RESULTS))
    slowest = max(found, key=lambda one: one[1].seconds)
    largest = max(found, key=lambda one: one[1].peak_mib)
    crashes = sum(verdict.detail.startswith("crash") for _, verdict in found)
    hangs = sum(verdict.detail.startswith("hangs") for _, verdict in found)
    print(f"slowest {slowest[1].seconds:.2f} s of {LIMIT_S:g} ({slowest[0].number}, {slowest[1].mutation})")
    print(f"peak memory {largest[1].peak_mib} MiB ({largest[0].number}, {largest[1].mutation})")
    print(f"crashes of native code {crashes}, hangs {hangs}")
    for mutant, verdict in found:
        if verdict.result == "VIOLATION":
            print(f"\nmutant {mutant.number}: {verdict.mutation}\n{verdict.detail}")
    return int(total["VIOLATION"] > 0)


if __name__ == "__main__":
    sys.exit(main())
