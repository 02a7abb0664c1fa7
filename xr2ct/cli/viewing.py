"""The command that shows one patient."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from xr2ct.cli.arguments import above_zero, command, positive, radiograph_arguments


def add_view(commands: Any) -> None:
    p = command(
        commands,
        "view",
        run_view,
        "a page for one patient: planes, projections, X-rays beside re-projections",
    )
    p.add_argument(
        "volume", type=Path, metavar="VOLUME", help="in HU: .mha, .nii.gz, .nrrd, .npy, a folder of DICOM"
    )
    p.add_argument(
        "--xray", action="append", default=[], metavar="ANGLE|NAME=FILE",
        help="an X-ray that came in, to compare the volume with: .mha, .npy, .png or DICOM; repeat",
    )  # fmt: skip
    p.add_argument(
        "--doubt", type=Path, default=None, metavar="FILE", help="standard deviation in HU, same grid"
    )
    p.add_argument(
        "--unseen", type=Path, default=None, metavar="FILE", help="what no X-ray tells of, in HU, same grid"
    )
    p.add_argument("--truth", type=Path, default=None, metavar="FILE", help="the true CT, same grid")
    p.add_argument(
        "--out", type=Path, default=None, metavar="PAGE.html", help="default: the volume's name, .html"
    )
    p.add_argument(
        "--geometry", default=None, help="what the X-rays were taken with (default: what their .mha says)"
    )
    p.add_argument("--png-scale", type=above_zero, default=None, help="line integral of a .png's white")
    radiograph_arguments(p)
    p.add_argument("--cube-mm", type=above_zero, default=None, metavar="MM", help="side of a .npy's cube")
    p.add_argument(
        "--max-size", type=positive, default=None, metavar="N",
        help="average what is shown down to N voxels along an axis (default: 256)",
    )  # fmt: skip


def run_view(args: argparse.Namespace) -> None:
    from xr2ct.projection.geometry import named_geometry
    from xr2ct.projection.views import Stated
    from xr2ct.viewing.page import MAX_SIZE, write_view

    geometry = named_geometry(args.geometry) if args.geometry else None
    page = write_view(
        args.volume,
        args.out or _beside(args.volume),
        xrays=args.xray,
        doubt=args.doubt,
        unseen=args.unseen,
        truth=args.truth,
        given=Stated(geometry, args.png_scale, args.detector_mm, tuple(args.accept)),
        cube_mm=args.cube_mm,
        max_size=args.max_size or MAX_SIZE,
    )
    print(page)


def _beside(volume: Path) -> Path:
    """scan.nii.gz → scan.html"""
    volume = volume.resolve() if volume.name in ("", "..") else volume
    name = volume.name.removesuffix(".gz")
    return volume.with_name(f"{Path(name).stem if Path(name).suffix else name}.html")


COMMANDS = (add_view,)
