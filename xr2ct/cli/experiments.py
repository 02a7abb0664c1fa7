"""Commands on experiments: a configuration, its run, what the run made, and what is said of it."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xr2ct.cli.arguments import (
    above_zero,
    command,
    config_arguments,
    positive,
    print_result,
    radiograph_arguments,
    stated_way,
    way_arguments,
)
from xr2ct.errors import UserError


def add_summary(commands: Any) -> None:
    p = command(
        commands, "summary", run_summary, "networks, memory, seconds a step and GPU-hours of a configuration"
    )
    config_arguments(p)
    p.add_argument(
        "--device",
        default=None,
        metavar="NAME",
        help="on which, as h100-80gb, or here for this machine (default: its GPU, or else h100-80gb)",
    )
    p.add_argument("--ranks", type=positive, default=None, metavar="N", help="of so many (default: of all)")
    p.add_argument("--json", action="store_true")


def run_summary(args: argparse.Namespace) -> None:
    from xr2ct.config import load_experiment
    from xr2ct.summary import format_summary, summarise

    told = summarise(load_experiment(args.config, args.overrides), args.device, args.ranks)
    print_result(told, format_summary(told), args.json)


def add_train(commands: Any) -> None:
    p = command(commands, "train", run_train, "train here: one process, or each rank of torchrun or srun")
    config_arguments(p)


def run_train(args: argparse.Namespace) -> None:
    from xr2ct.config import load_experiment
    from xr2ct.training.loop import train

    print(train(load_experiment(args.config, args.overrides), args.overrides).path)


def add_reconstruct(commands: Any) -> None:
    p = command(commands, "reconstruct", run_reconstruct, "from X-rays to a volume in HU")
    p.add_argument("checkpoint", type=Path, help="a checkpoint's folder, or a file of `xr2ct export`")
    p.add_argument(
        "--view", action="append", default=[], metavar="ANGLE|NAME=FILE",
        help="line integrals (.mha, .npy, .png) or a DICOM radiograph (DX, CR); repeat",
    )  # fmt: skip
    p.add_argument("--out", type=Path, required=True, metavar="VOLUME.mha|.npy|.nii.gz")
    p.add_argument("--weights", choices=("mapper", "mapper-ema"), default="mapper")
    p.add_argument("--geometry", default=None, help="what the X-rays were taken with (default: as trained)")
    p.add_argument("--png-scale", type=float, default=None, help="line integral of a .png's white")
    radiograph_arguments(p)
    way_arguments(p)
    p.add_argument(
        "--unseen", action="store_true",
        help="also write VOLUME-unseen, the part that leaves no trace in the X-rays",
    )  # fmt: skip
    p.add_argument(
        "--memory-gb", type=above_zero, default=None, metavar="GB",
        help="take at most so much memory, by overlapping windows where the whole does not fit",
    )  # fmt: skip
    p.add_argument("--device", default="cpu")


def run_reconstruct(args: argparse.Namespace) -> None:
    from xr2ct.projection.geometry import named_geometry
    from xr2ct.projection.views import Stated
    from xr2ct.reconstruct import Asked, reconstruct

    files = reconstruct(
        args.checkpoint,
        args.view,
        args.out,
        Asked(stated_way(args), args.unseen, args.memory_gb, args.weights, args.device),
        Stated(
            named_geometry(args.geometry) if args.geometry else None,
            args.png_scale,
            args.detector_mm,
            tuple(args.accept),
        ),
    )
    print(*files, sep="\n")


def add_report(commands: Any) -> None:
    p = command(commands, "report", run_report, "tables, figures and a self-contained page of runs")
    p.add_argument(
        "targets", nargs="*", metavar="RUN|CONFIG|key.sub=value", help="runs, or configurations' members"
    )
    p.add_argument(
        "--from", dest="locks", type=Path, nargs="+", default=[], metavar="LOCK",
        help="draw tables and figures again from NAME.lock.json and the source beside it",
    )  # fmt: skip
    p.add_argument("--out", type=Path, required=True, metavar="DIR")
    p.set_defaults(overrides=[])  # those after --out


def run_report(args: argparse.Namespace) -> None:
    from xr2ct.reporting.chosen import choose_runs
    from xr2ct.reporting.lock import rebuild
    from xr2ct.reporting.report import write_report
    from xr2ct.tracking import track_artifact

    targets = [*args.targets, *args.overrides]
    if bool(targets) == bool(args.locks):
        raise UserError("report: expected runs or configurations, or else --from NAME.lock.json")
    for lock in args.locks:
        for file in rebuild(lock, args.out):
            print(file)
    if targets:
        chosen = choose_runs(targets)
        told = ["xr2ct", "report", *targets, "--out", str(args.out)]
        print(write_report(chosen.runs, args.out, absent=chosen.absent, command=told))
        for run in chosen.runs:
            track_artifact(run, args.out, "report")


def add_track(commands: Any) -> None:
    p = command(commands, "track", run_track, "bring the tracker level with a run's own files")
    p.add_argument("action", choices=("sync",))
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN")


def run_track(args: argparse.Namespace) -> None:
    from xr2ct.run import Run
    from xr2ct.tracking import sync

    for path in args.runs:
        print(f"{path}: {sync(Run.open(path))}")


COMMANDS = (
    add_summary,
    add_train,
    add_reconstruct,
    add_report,
    add_track,
)
