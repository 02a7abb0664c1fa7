"""The front door: arguments in, one call, a few lines out.

Exit codes: 0 done; 1 the work failed; 2 the request was wrong, said in one or two lines; 75 stopped when
asked to, with everything saved that the same command goes on from; 77 a later incarnation of the run has
taken over.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence

from xr2ct import __version__
from xr2ct.cli import bench, data, evaluation, experiments, jobs, study, submission, viewing
from xr2ct.cli.arguments import Parser
from xr2ct.errors import STOPPED, SUPERSEDED, Stopped, Superseded, UserError, WorkFailed

INFER = ("torch", "monai", "einops", "h5py", "kornia", "pydicom", "safetensors", "scipy", "SimpleITK", "tqdm")
"""Packages that [infer] brings; anything else missing is [train]'s, or DALI."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        args = _parse(arguments)
        args.run(args)
    except UserError as error:
        return _fail(error, 2)
    except Superseded as error:
        return _fail(error, SUPERSEDED)
    except WorkFailed as error:
        return _fail(error, 1)
    except Stopped as error:
        return _fail(error, STOPPED)
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


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Their meaning; overrides may stand before and after the options, which argparse alone does not take."""
    parser = build_parser()
    args, left = parser.parse_known_args(arguments)
    if left and hasattr(args, "overrides") and not any(text.startswith("-") for text in left):
        args.overrides += left
    elif left:
        parser.error(f"unrecognized arguments: {' '.join(left)}")
    return args


def build_parser() -> Parser:
    """Every command with its arguments."""
    parser = Parser(prog="xr2ct", description="X-rays to CT-like volumes", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"xr2ct {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=Parser)
    for part in (data, experiments, evaluation, viewing, study, submission, jobs, bench):
        for add in part.COMMANDS:
            add(commands)
    return parser


def _fail(message: object, code: int) -> int:
    print(f"xr2ct: {message}", file=sys.stderr)
    return code
