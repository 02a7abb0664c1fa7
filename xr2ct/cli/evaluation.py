"""Commands that score: a run's checkpoints in every way there is, and one volume against its truth."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xr2ct.cli.arguments import (
    command,
    positive,
    print_result,
    radiograph_arguments,
    stated_way,
    way_arguments,
    window,
)
from xr2ct.errors import UserError

if TYPE_CHECKING:
    from xr2ct.run import Run

Rows = tuple[list[dict[str, Any]], Sequence[str]]
"""Of a table, and the metrics that a terminal has room for."""


def add_evaluate(commands: Any) -> None:
    p = command(commands, "evaluate", run_evaluate, "score a run's checkpoints, whatever is not scored yet")
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    p.add_argument(
        "--watch", action="store_true", help="have it done by jobs of --cluster until training has ended"
    )
    p.add_argument("--round", action="store_true", help="have it done by jobs of --cluster, looking once")
    p.add_argument("--cluster", default=None, metavar="PROFILE")
    p.add_argument(
        "--step", default=None, help="a number, best, last or all (default: all; best for what follows)"
    )
    p.add_argument("--cohort", nargs="+", default=None, metavar="NAME")
    p.add_argument(
        "--predictions", type=Path, default=None, metavar="DIR", help="volumes from elsewhere, CASE.mha"
    )
    p.add_argument("--name", default=None, help="what the predictions are called in every table")
    p.add_argument(
        "--leave-out",
        choices=("mean", "zero"),
        nargs="?",
        const="mean",
        default=None,
        help="score without each view in turn, with the mean training view in its place, or zeros",
    )
    way_arguments(p)
    p.add_argument(
        "--moved", choices=("drawn", "corner"), nargs="?", const="drawn", default=None,
        help="score patients who moved between the views, up to 5° and 10 mm or by just that, as they come "
        "and in a way (default: --align 3)",
    )  # fmt: skip
    p.add_argument(
        "--real",
        action="store_true",
        help="score reconstructions of the stores' radiographs against the CT of the same days",
    )
    p.add_argument(
        "--days", type=positive, default=None, metavar="N", help="between the two at most (default: 7)"
    )
    radiograph_arguments(p)
    p.add_argument("--json", action="store_true")


def run_evaluate(args: argparse.Namespace) -> None:
    from xr2ct.evaluation.leaderboard import format_leaderboard
    from xr2ct.run import Run

    study = _study(args)
    if args.watch or args.round or args.cluster:
        _evaluate_by_jobs(args, study)
        return
    for path in args.runs:
        rows, shown = _STUDIES[study](Run.open(path), args)
        print_result(rows, format_leaderboard(rows, shown), args.json)


def _study(args: argparse.Namespace) -> str | None:
    """What is scored beside the checkpoints, None for these; `UserError` for what does not go together."""
    asked = {
        "--predictions": bool(args.predictions),
        "--leave-out": bool(args.leave_out),
        "--real": args.real,
        "--moved": bool(args.moved),
        "a way": bool(stated_way(args).label) and not args.moved,
    }
    chosen = [name for name, wanted in asked.items() if wanted]
    if len(chosen) > 1:
        raise UserError(f"one at a time of {', '.join(chosen)} (--refine, --align, --samples, --doubt)")
    if (args.predictions is None) != (args.name is None):
        raise UserError("--predictions DIR and --name X go together")
    if args.predictions and args.step:
        raise UserError("--predictions are of no checkpoint: --step does not go with them")
    if not args.real and (args.days or args.detector_mm or args.accept):
        raise UserError("--days, --detector-mm and --accept are of radiographs: --real goes with them")
    return chosen[0] if chosen else None


def _checkpoints(run: Run, args: argparse.Namespace) -> Rows:
    from xr2ct.evaluation.in_way import way_sources
    from xr2ct.evaluation.sweep import evaluate
    from xr2ct.evaluation.ways import evaluate_ways

    evaluate(run, steps=args.step or "all", cohorts=args.cohort)
    if way_sources(run, experiment := run.experiment()):
        evaluate_ways(run, experiment.evaluation.ways, "best", args.cohort)
    return _leaderboard(run)


def _predictions(run: Run, args: argparse.Namespace) -> Rows:
    from xr2ct.evaluation.predictions import evaluate_predictions

    evaluate_predictions(run, args.predictions, args.name, args.cohort)
    return _leaderboard(run)


def _leaderboard(run: Run) -> Rows:
    from xr2ct.evaluation.leaderboard import SHOWN, read_leaderboard
    from xr2ct.tracking import bring_level

    bring_level(run)
    return read_leaderboard(run), SHOWN


def _left_out(run: Run, args: argparse.Namespace) -> Rows:
    from xr2ct.evaluation.leaderboard import SHOWN
    from xr2ct.evaluation.left_out import evaluate_left_out, left_out_rows

    evaluate_left_out(run, args.step or "best", args.cohort, args.leave_out)
    return left_out_rows(run), SHOWN


def _way(run: Run, args: argparse.Namespace) -> Rows:
    from xr2ct.evaluation.ways import WAYS_SHOWN, evaluate_ways, way_rows

    evaluate_ways(run, [stated_way(args)], args.step or "best", args.cohort)
    return way_rows(run), WAYS_SHOWN


def _moved(run: Run, args: argparse.Namespace) -> Rows:
    from xr2ct.config import Way
    from xr2ct.evaluation.leaderboard import SHOWN, mean_row
    from xr2ct.evaluation.moved import Motion, evaluate_moved, read_moved

    way = stated_way(args)
    ways = (Way(), way if way.label else Way(align=3))
    evaluate_moved(run, ways, Motion(corner=args.moved == "corner"), args.step or "best", args.cohort)
    return [mean_row(result) for _, result in read_moved(run)], SHOWN


def _real(run: Run, args: argparse.Namespace) -> Rows:
    from xr2ct.evaluation import real

    real.evaluate_real(
        run,
        args.step or "best",
        args.cohort,
        args.days or real.DAYS,
        detector_mm=args.detector_mm,
        accept=args.accept,
    )
    return real.real_rows(run), real.SHOWN


_STUDIES = {
    None: _checkpoints,
    "--predictions": _predictions,
    "--leave-out": _left_out,
    "--real": _real,
    "--moved": _moved,
    "a way": _way,
}


def _evaluate_by_jobs(args: argparse.Namespace, study: str | None) -> None:
    from launch.evaluator import watch
    from launch.profiles import load_profile

    if args.cluster is None or args.watch == args.round:
        raise UserError("--cluster PROFILE goes with one of --watch and --round")
    if args.step or args.cohort or study or args.json:
        told = "--step, --cohort, --predictions, --leave-out, --real, --moved, a way nor --json"
        raise UserError(f"--watch and --round take neither {told}")
    watch(load_profile(args.cluster), args.runs, once=args.round)


def add_score(commands: Any) -> None:
    p = command(commands, "score", run_score, "every metric of one volume against its truth, as JSON")
    p.add_argument("prediction", type=Path)
    p.add_argument("truth", type=Path)
    p.add_argument("--window", type=window, default=None, metavar="LO,HI", help="HU (default: -1024,1476)")


def run_score(args: argparse.Namespace) -> None:
    from xr2ct.evaluation.score import score_files
    from xr2ct.window import HuWindow

    print(json.dumps(score_files(args.prediction, args.truth, args.window or HuWindow()), indent=2))


COMMANDS = (add_evaluate, add_score)
