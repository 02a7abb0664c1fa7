"""`xr2ct bench`: same-run ratios against named peers, which live with the tests of a clone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from xr2ct.cli.arguments import command, print_result
from xr2ct.errors import UserError


def add_bench(commands: Any) -> None:
    p = command(commands, "bench", run_bench, "times against named peers, in the same run")
    p.add_argument("names", nargs="+", metavar="NAME|all", help="a row, or a file of tests/benchmarks/")
    p.add_argument("--json", action="store_true")


def run_bench(args: argparse.Namespace) -> None:
    root = Path(__file__).resolve().parents[2]
    if not (root / "tests" / "benchmarks").is_dir():
        raise UserError("bench: the peers and their benchmarks come with a clone, not with an installation")
    sys.path.insert(0, str(root))
    from tests.benchmarks.registry import format_row, rows_of, run_rows

    told = run_rows(rows_of(args.names))
    print_result(told, "\n".join(format_row(row) for row in told["rows"]), args.json)


COMMANDS = (add_bench,)
