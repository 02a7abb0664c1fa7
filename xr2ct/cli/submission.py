"""`xr2ct submit`: a configuration onto a cluster."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from xr2ct.cli.arguments import command, config_arguments


def add_submit(commands: Any) -> None:
    p = command(
        commands, "submit", run_submit, "start a training job on a cluster, or on this machine's ranks"
    )
    config_arguments(p)
    p.add_argument("--cluster", required=True, metavar="PROFILE")
    p.add_argument("--wait", action="store_true", help="follow rank 0's log until the job has ended")


def run_submit(args: argparse.Namespace) -> None:
    from launch.profiles import load_profile
    from launch.submit import follow, submit

    submission = submit(args.config, args.overrides, load_profile(args.cluster))
    print(f"job {submission.job.job_id}: {submission.run}", flush=True)
    if args.wait:
        for line in follow(submission):
            print(line, file=sys.stderr, flush=True)


COMMANDS = (add_submit,)
