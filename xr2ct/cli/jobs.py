"""Commands on runs that are, or were, on a cluster: how they are, what they say, ending and going on."""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xr2ct.cli.arguments import Parser, command, positive, print_result
from xr2ct.errors import WorkFailed

RUNS = Path("runs")


def add_status(commands: Any) -> None:
    p = command(
        commands, "status", run_status, "how runs are: job, step, rate, time left, score, what is to do"
    )
    _runs(p, nargs="*")
    p.add_argument("--json", action="store_true")


def run_status(args: argparse.Namespace) -> None:
    from launch.status import format_status, read_status

    rows, trouble = read_status(args.runs or [RUNS])
    print_result([asdict(row) for row in rows], format_status(rows), args.json)
    if trouble:
        raise WorkFailed(f"what Slurm knows is missing above: {trouble}")


def add_logs(commands: Any) -> None:
    p = command(commands, "logs", run_logs, "what a rank of a run's job says, or the host script")
    p.add_argument("run_folder", type=Path, metavar="RUN")
    which = p.add_mutually_exclusive_group()
    which.add_argument("--rank", type=int, default=0, metavar="R", help="default: 0")
    which.add_argument("--host", action="store_true", help="the host script's: starts, stops, requeues")
    p.add_argument(
        "--lines", type=positive, default=50, metavar="N", help="last lines to begin with (default: 50)"
    )
    p.add_argument("--follow", action="store_true", help="go on until the job has ended")


def run_logs(args: argparse.Namespace) -> None:
    from launch.logs import read_log
    from xr2ct.run import Run

    for line in read_log(Run(args.run_folder), None if args.host else args.rank, args.lines, args.follow):
        print(line, flush=args.follow)


def add_cancel(commands: Any) -> None:
    p = command(commands, "cancel", run_cancel, "end the jobs of runs, and the evaluator nobody needs then")
    _runs(p)


def run_cancel(args: argparse.Namespace) -> None:
    from launch.cancel import cancel

    for line in cancel(args.runs):
        print(line)


def add_resubmit(commands: Any) -> None:
    p = command(commands, "resubmit", run_resubmit, "submit again, as one array, only the runs that failed")
    _runs(p)
    p.add_argument("--cluster", default=None, metavar="PROFILE", help="default: where each run was last")
    p.add_argument("--refresh-code", action="store_true", help="run today's code, not what was submitted")


def run_resubmit(args: argparse.Namespace) -> None:
    from launch.resubmit import resubmit

    for line in resubmit(args.runs, args.cluster, args.refresh_code):
        print(line)


def add_du(commands: Any) -> None:
    p = command(commands, "du", run_du, "what runs take on the disk, by part")
    _runs(p)
    p.add_argument("--json", action="store_true", help="in bytes")


def run_du(args: argparse.Namespace) -> None:
    from launch.usage import format_usage, usage_table

    table = usage_table(args.runs)
    print_result(table, format_usage(table), args.json)


def add_clean(commands: Any) -> None:
    p = command(commands, "clean", run_clean, "delete what neither resuming nor the evaluator needs any more")
    _runs(p)
    p.add_argument("--dry-run", action="store_true", help="only list it")
    p.add_argument(
        "--weights", action="store_true",
        help="also checkpoints scored on everything that are neither the best nor of the last",
    )  # fmt: skip


def run_clean(args: argparse.Namespace) -> None:
    from launch.usage import clean, format_unneeded

    gone, left = clean(args.runs, weights=args.weights, dry_run=args.dry_run)
    for line in left:
        print(line, file=sys.stderr)
    print(format_unneeded(gone, args.dry_run))


def add_doctor(commands: Any) -> None:
    p = command(
        commands, "doctor", run_doctor, "a short job that finds out what training will miss on a cluster"
    )
    p.add_argument("--cluster", required=True, metavar="PROFILE")
    p.add_argument(
        "--run-root",
        type=Path,
        default=RUNS,
        metavar="DIR",
        help="where runs will be written (default: ./runs)",
    )
    p.add_argument(
        "--timeout", type=positive, default=1800, metavar="SECONDS", help="give up then (default: 1800)"
    )
    p.add_argument("--json", action="store_true")


def run_doctor(args: argparse.Namespace) -> None:
    from launch.doctor import examine, format_outcomes
    from launch.profiles import load_profile

    def tell(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    outcomes = examine(load_profile(args.cluster), args.run_root, args.timeout, tell)
    print_result([asdict(o) for o in outcomes], format_outcomes(outcomes), args.json)
    if failed := [o.check for o in outcomes if o.outcome == "FAILED"]:
        raise WorkFailed(f"--cluster {args.cluster}: failed: {', '.join(failed)}")


def _runs(p: Parser, nargs: str = "+") -> None:
    told = f"a run, or a folder of runs{' (default: ./runs)' if nargs == '*' else ''}"
    p.add_argument("runs", type=Path, nargs=nargs, metavar="RUN|RUN_ROOT", help=told)


COMMANDS = (add_status, add_logs, add_cancel, add_resubmit, add_du, add_clean, add_doctor)
