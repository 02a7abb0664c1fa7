"""What the commands' arguments have in common: the parser that says one line, and the types of values."""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from xr2ct.errors import UserError, nearest


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, as every other wrong request does."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{self.prog}: {message}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            raise UserError(
                f"{self.prog}: unknown {value!r}; {nearest(str(value), map(str, action.choices))}"
            )


def command(commands: Any, name: str, run: Callable[[argparse.Namespace], None], told: str) -> Parser:
    parser = commands.add_parser(name, help=told, description=told, allow_abbrev=False)
    parser.set_defaults(run=run)
    return parser


def config_arguments(parser: Parser) -> None:
    parser.add_argument("config", type=Path, metavar="CONFIG")
    parser.add_argument("overrides", nargs="*", metavar="key.sub=value")


def geometry_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--geometry", default=None, help="name of a geometry (default: the store's own, or x2ct)"
    )
    parser.add_argument("--pixels", type=positive, default=None, help="detector rows and columns")
    parser.add_argument("--sad", type=float, default=None, help="source to isocentre, mm")
    parser.add_argument("--sid", type=float, default=None, help="source to detector, mm")
    parser.add_argument("--detector-mm", type=float, default=None, help="side of the detector")


def stated_geometry(args: argparse.Namespace) -> Any:
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


def way_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--refine", type=positive, default=0, metavar="N",
        help="move the volume, in at most N steps, to agree with the X-rays that came in",
    )  # fmt: skip
    parser.add_argument(
        "--prior", choices=("none", "tv", "features"), default="tv",
        help="that refining is held by, beside nearness (default: tv, the total variation of the correction)",
    )  # fmt: skip
    parser.add_argument(
        "--align", type=positive, default=0, metavar="N",
        help="estimate in N rounds how the patient moved between the views",
    )  # fmt: skip
    parser.add_argument(
        "--samples",
        type=positive,
        default=1,
        metavar="N",
        help="the mean of N volumes of a mapper that draws",
    )
    parser.add_argument(
        "--doubt", choices=("samples", "ensemble", "views"), default=None,
        help="standard deviation of each voxel over the samples, the run's checkpoints, or the views but one",
    )  # fmt: skip


def radiograph_arguments(parser: Parser) -> None:
    parser.add_argument(
        "--detector-mm", type=above_zero, default=None, metavar="MM",
        help="long side of a radiograph's detector, where its header does not say",
    )  # fmt: skip
    parser.add_argument(
        "--accept", action="append", choices=("view", "distance", "spacing"), default=[],
        help="overrule what a radiograph's header says of it; repeat",
    )  # fmt: skip


def stated_way(args: argparse.Namespace) -> Any:
    """The `Way` of those arguments; `UserError` for two that do not go together."""
    from xr2ct.config import Way, validate

    return validate(
        Way, {k: getattr(args, k) for k in ("refine", "prior", "align", "samples", "doubt")}, "way"
    )


def positive(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number above 0, got {text!r}")
    return int(text)


def above_zero(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"expected a number above 0, got {text!r}")
    return number


def positives(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def words(text: str) -> tuple[str, ...]:
    return tuple(part for part in text.split(",") if part)


def angles(text: str) -> tuple[float, ...]:
    from xr2ct.projection.geometry import parse_angle

    try:
        return tuple(parse_angle(part) for part in text.split(","))
    except UserError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def window(text: str) -> Any:
    from xr2ct.window import HuWindow

    try:
        low, high = map(float, text.split(","))
        return HuWindow(low, high)
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected LO,HI in HU with LO < HI, got {text!r}") from None


def print_result(values: Any, text: str, as_json: bool) -> None:
    print(json.dumps(values, indent=2) if as_json else text)
