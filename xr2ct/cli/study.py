"""The command that does everything for a configuration, on this machine."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xr2ct.cli.arguments import above_zero, command, config_arguments


def add_study(commands: Any) -> None:
    p = command(
        commands,
        "study",
        run_study,
        "a configuration from nothing to its report, here: stores of synthetic chests, training, scores",
    )
    config_arguments(p)
    p.add_argument("--out", type=Path, required=True, metavar="DIR")
    p.add_argument(
        "--minutes",
        type=above_zero,
        default=None,
        metavar="M",
        help="train each member for so long, not by its steps",
    )


def run_study(args: argparse.Namespace) -> None:
    from xr2ct import study

    told = ["xr2ct", "study", str(args.config), *args.overrides, "--out", str(args.out)]
    told += ["--minutes", f"{args.minutes:g}"] if args.minutes else []
    print(study.run_study(args.config, args.overrides, args.out, args.minutes, told))


COMMANDS = (add_study,)
