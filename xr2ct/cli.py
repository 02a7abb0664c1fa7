"""The front door: arguments in, one call, a few lines out.

Exit codes: 0 done; 1 the work failed; 2 the request was wrong, said in one or two lines.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from xr2ct import __version__
from xr2ct.errors import UserError, WorkFailed, nearest

INFER = ("torch", "monai", "einops", "pydicom", "safetensors", "scipy", "SimpleITK")
"""Packages that [infer] brings; anything else missing is [train]'s, or DALI."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = build_parser().parse_args(arguments)
        args.run(args)
    except UserError as error:
        return _fail(error, 2)
    except WorkFailed as error:
        return _fail(error, 1)
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if package in ("", "xr2ct", "launch"):
            raise
        extra = "infer" if package in INFER else "train,cuda13" if package == "nvidia" else "train"
        return _fail(f"this command needs {package!r}: pip install 'xr2ct[{extra}]'", 2)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    return 0


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other wrong request does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UserError(
                f"{self.prog}: unknown {value!r}; {nearest(str(value), map(str, action.choices))}"
            )


def build_parser() -> Parser:
    """Every command with its arguments."""
    parser = Parser(prog="xr2ct", description="X-rays to CT-like volumes", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"xr2ct {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for add in (
        _phantom, _ingest, _inspect, _project, _summary, _train, _evaluate, _score, _reconstruct, _report,
        _submit, _track,
    ):  # fmt: skip
        add(commands)
    return parser


def _command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], told: str) -> Parser:
    parser = commands.add_parser(name, help=told, description=told, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def _phantom(commands: Any) -> None:
    p = _command(commands, "phantom", run_phantom, "write synthetic chests as DICOM series")
    p.add_argument("folder", type=Path, metavar="DIR")
    p.add_argument("--cohort", required=True)
    p.add_argument("--patients", type=_positive, required=True)
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--workers", type=_positive, default=None, help="processes (default: one a core)")


def run_phantom(args: argparse.Namespace) -> None:
    from xr2ct.cohorts.names import check_cohort
    from xr2ct.cohorts.phantom import write_cohort

    folders = write_cohort(
        args.folder,
        check_cohort(args.cohort),
        args.patients,
        args.seed,
        workers=args.workers or os.cpu_count() or 1,
    )
    print(f"{len(folders)} synthetic chests of {args.cohort} in {args.folder}")


def _ingest(commands: Any) -> None:
    p = _command(commands, "ingest", run_ingest, "raw CT to a Zarr store with its X-rays")
    p.add_argument("cohort")
    p.add_argument("source", type=Path)
    p.add_argument("--out", type=Path, required=True, metavar="STORE")
    p.add_argument("--size", type=_positives, default=(64,), metavar="64[,128]")
    p.add_argument("--cube-mm", type=float, default=320.0)
    p.add_argument(
        "--angles", type=_angles, default=None, help="degrees or view names (default: eight, 45° apart)"
    )
    _geometry_arguments(p)
    p.add_argument("--seed", type=int, default=0, help="of the split by patient")
    p.add_argument("--split-list", type=Path, default=None, metavar="CSV", help="columns patient, split")
    p.add_argument("--workers", type=_positive, default=None, help="processes (default: one a core)")
    p.add_argument("--json", action="store_true")


def run_ingest(args: argparse.Namespace) -> None:
    from xr2ct.cohorts.names import check_cohort
    from xr2ct.ingest import ingest

    geometry = _geometry(args)
    report = ingest(
        args.source,
        args.out,
        check_cohort(args.cohort),
        args.size,
        geometries=(geometry,) if geometry else (),
        angles=args.angles,
        cube_mm=args.cube_mm,
        seed=args.seed,
        split_list=args.split_list,
        workers=args.workers,
    )
    _print(report.as_dict(), str(report), args.json)


def _inspect(commands: Any) -> None:
    p = _command(commands, "inspect", run_inspect, "counts, splits, geometry and a contact sheet of a store")
    p.add_argument("store", type=Path)
    p.add_argument("--verify", action="store_true", help="check every chunk against its checksum")
    p.add_argument("--sheet", type=Path, default=None, metavar="PNG", help="write a contact sheet")
    p.add_argument("--json", action="store_true")


def run_inspect(args: argparse.Namespace) -> None:
    from xr2ct.inspect import contact_sheet, format_summary, summary, verify
    from xr2ct.store import Store

    store = Store.open(args.store)
    told = summary(store)
    _print(told, format_summary(told), args.json)
    if args.sheet:
        contact_sheet(store, args.sheet)
    if args.verify:
        problems = verify(store)
        if problems:
            raise WorkFailed("\n".join(problems))
        print(f"{len(store.cases)} cases: every chunk matches its checksum", file=sys.stderr)


def _project(commands: Any) -> None:
    p = _command(
        commands, "project", run_project, "line integrals of a CT, or a store's own, as .mha and .png"
    )
    p.add_argument(
        "source", type=Path, metavar="CT|STORE", help="a DICOM folder, .nii.gz, .mha, .nrrd; a store"
    )
    p.add_argument("--case", default=None, help="of a store: this case alone")
    p.add_argument("--angles", type=_angles, default=(0.0, 90.0), help="degrees or view names")
    _geometry_arguments(p)
    p.add_argument("--out", type=Path, required=True, metavar="DIR")


def run_project(args: argparse.Namespace) -> None:
    from xr2ct.projection.export import export_views
    from xr2ct.projection.geometry import named_geometry

    geometry = _geometry(args) or named_geometry("x2ct")
    for path in export_views(args.source, geometry, args.angles, args.out, case=args.case):
        print(path)


def _summary(commands: Any) -> None:
    p = _command(
        commands, "summary", run_summary, "networks, parameters, operations and memory of a configuration"
    )
    _config_arguments(p)
    p.add_argument("--json", action="store_true")


def run_summary(args: argparse.Namespace) -> None:
    from xr2ct.config import load_experiment
    from xr2ct.summary import format_summary, summarise

    told = summarise(load_experiment(args.config, args.overrides))
    _print(told, format_summary(told), args.json)


def _train(commands: Any) -> None:
    p = _command(commands, "train", run_train, "train here: one process, or each rank of torchrun or srun")
    _config_arguments(p)


def run_train(args: argparse.Namespace) -> None:
    from xr2ct.config import load_experiment
    from xr2ct.training.loop import train

    print(train(load_experiment(args.config, args.overrides), args.overrides).path)


def _evaluate(commands: Any) -> None:
    p = _command(commands, "evaluate", run_evaluate, "score a run's checkpoints, whatever is not scored yet")
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    p.add_argument("--step", default="all", help="a number, best, last or all")
    p.add_argument("--cohort", nargs="+", default=None, metavar="NAME")
    p.add_argument(
        "--predictions", type=Path, default=None, metavar="DIR", help="volumes from elsewhere, CASE.mha"
    )
    p.add_argument("--name", default=None, help="what the predictions are called in every table")
    p.add_argument("--json", action="store_true")


def run_evaluate(args: argparse.Namespace) -> None:
    from xr2ct.evaluation.leaderboard import format_leaderboard, read_leaderboard
    from xr2ct.evaluation.predictions import evaluate_predictions
    from xr2ct.evaluation.sweep import evaluate
    from xr2ct.run import Run
    from xr2ct.tracking import bring_level

    if (args.predictions is None) != (args.name is None):
        raise UserError("--predictions DIR and --name X go together")
    for path in args.runs:
        run = Run.open(path)
        if args.predictions is None:
            evaluate(run, steps=args.step, cohorts=args.cohort)
        else:
            evaluate_predictions(run, args.predictions, args.name, args.cohort)
        bring_level(run)
        rows = read_leaderboard(run)
        _print(rows, format_leaderboard(rows), args.json)


def _score(commands: Any) -> None:
    p = _command(commands, "score", run_score, "every metric of one volume against its truth, as JSON")
    p.add_argument("prediction", type=Path)
    p.add_argument("truth", type=Path)
    p.add_argument("--window", type=_window, default=None, metavar="LO,HI", help="HU (default: -1024,1476)")


def run_score(args: argparse.Namespace) -> None:
    from xr2ct.evaluation.score import score_files
    from xr2ct.window import HuWindow

    print(json.dumps(score_files(args.prediction, args.truth, args.window or HuWindow()), indent=2))


def _reconstruct(commands: Any) -> None:
    p = _command(commands, "reconstruct", run_reconstruct, "from X-rays to a volume in HU")
    p.add_argument("checkpoint", type=Path)
    p.add_argument(
        "--view", action="append", default=[], metavar="ANGLE|NAME=FILE", help=".mha, .npy or .png; repeat"
    )
    p.add_argument("--out", type=Path, required=True, metavar="VOLUME.mha|.npy|.nii.gz")
    p.add_argument("--weights", choices=("mapper", "mapper-ema"), default="mapper")
    p.add_argument("--geometry", default=None, help="what the X-rays were taken with (default: as trained)")
    p.add_argument("--png-scale", type=float, default=None, help="line integral of a .png's brightest level")
    p.add_argument("--device", default="cpu")


def run_reconstruct(args: argparse.Namespace) -> None:
    from xr2ct.projection.geometry import named_geometry
    from xr2ct.reconstruct import reconstruct

    out = reconstruct(
        args.checkpoint,
        args.view,
        args.out,
        which=args.weights,
        geometry=named_geometry(args.geometry) if args.geometry else None,
        png_scale=args.png_scale,
        device=args.device,
    )
    print(out)


def _report(commands: Any) -> None:
    p = _command(commands, "report", run_report, "tables, figures and a self-contained page of runs")
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN")
    p.add_argument("--out", type=Path, required=True, metavar="DIR")


def run_report(args: argparse.Namespace) -> None:
    from xr2ct.reporting.report import write_report
    from xr2ct.run import Run
    from xr2ct.tracking import track_artifact

    runs = [Run.open(path) for path in args.runs]
    print(write_report(runs, args.out))
    for run in runs:
        track_artifact(run, args.out, "report")


def _submit(commands: Any) -> None:
    p = _command(
        commands, "submit", run_submit, "start a training job on a cluster, or on this machine's ranks"
    )
    _config_arguments(p)
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


def _track(commands: Any) -> None:
    p = _command(commands, "track", run_track, "bring the tracker level with a run's own files")
    p.add_argument("action", choices=("sync",))
    p.add_argument("runs", type=Path, nargs="+", metavar="RUN")


def run_track(args: argparse.Namespace) -> None:
    from xr2ct.run import Run
    from xr2ct.tracking import sync

    for path in args.runs:
        print(f"{path}: {sync(Run.open(path))}")


def _config_arguments(parser: Parser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")


def _geometry_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--geometry", default=None, help="name of a geometry (default: the store's own, or x2ct)"
    )
    parser.add_argument("--pixels", type=_positive, default=None, help="detector rows and columns")
    parser.add_argument("--sad", type=float, default=None, help="source to isocentre, mm")
    parser.add_argument("--sid", type=float, default=None, help="source to detector, mm")
    parser.add_argument("--detector-mm", type=float, default=None, help="side of the detector")


def _geometry(args: argparse.Namespace) -> Any:
    """The named geometry, None where none is; any number stated makes it a new one."""
    from xr2ct.projection.geometry import NAMED, Geometry, named_geometry

    told = {
        "sad_mm": args.sad, "sid_mm": args.sid, "detector_mm": args.detector_mm, "pixels": args.pixels,
    }  # fmt: skip
    stated = {key: value for key, value in told.items() if value is not None}
    if not stated:
        return named_geometry(args.geometry) if args.geometry else None
    if args.geometry in NAMED:
        raise UserError(f"--geometry {args.geometry} has its own numbers; with others give it another name")
    return Geometry(**(NAMED["x2ct"].as_attributes() | stated | {"name": args.geometry or "custom"}))


def _positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def _positives(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _angles(text: str) -> tuple[float, ...]:
    from xr2ct.projection.geometry import parse_angle

    try:
        return tuple(parse_angle(part) for part in text.split(","))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _window(text: str) -> Any:
    from xr2ct.window import HuWindow

    try:
        low, high = map(float, text.split(","))
        return HuWindow(low, high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected LO,HI in HU with LO < HI, got {text!r}") from None


def _print(values: Any, text: str, as_json: bool) -> None:
    print(json.dumps(values, indent=2) if as_json else text)


def _fail(message: object, code: int) -> int:
    print(f"xr2ct: {message}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
