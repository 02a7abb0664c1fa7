"""`xr2ct submit`: a configuration onto a cluster."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from xr2ct.cli.arguments import command, config_arguments
from xr2ct.errors import UserError, WorkFailed


def add_submit(commands: Any) -> None:
    p = command(
        commands, "submit", run_submit, "train every member of a configuration as one array on a cluster"
    )
    config_arguments(p)
    p.add_argument("--cluster", required=True, metavar="PROFILE", help="a name in slurm/profiles, or a path")
    p.add_argument("--dry-run", action="store_true", help="print the exact batch script and submit nothing")
    p.add_argument("--wait", action="store_true", help="follow rank 0's log until the jobs have ended")
    p.add_argument(
        "--refresh-code", action="store_true", help="replace the code that a run was submitted with before"
    )


def run_submit(args: argparse.Namespace) -> None:
    from launch import evaluator
    from launch.cost import format_cost
    from launch.submit import follow, plan, submit

    planned = plan(args.config, args.overrides, args.cluster)
    for path in planned.finished:
        print(f"finished: {path}", flush=True)
    if not planned.members:
        return
    print(format_cost(planned.cost(), planned.profile, planned.run_root), file=sys.stderr, flush=True)
    if args.dry_run:
        print(planned.text(), end="")
        return
    submitted = submit(planned, args.refresh_code)
    for one in submitted:
        print(f"job {one.job}: {one.run}", flush=True)
    try:
        scoring = evaluator.start(planned.profile, planned.run_root, [one.run for one in submitted])
    except (UserError, WorkFailed) as error:
        raise WorkFailed(f"training is submitted, its evaluator is not: {error}") from None
    if scoring is not None:
        print(f"evaluator {scoring}: {planned.run_root}", flush=True)
    if args.wait:
        for one in submitted:
            for line in follow(one):
                print(line, file=sys.stderr, flush=True)


COMMANDS = (add_submit,)
