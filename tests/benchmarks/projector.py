"""The projector against Plastimatch, DiffDRR and the memory of a GPU.

One view, float32, geometry x2ct, of a smooth chest in a 320 mm cube, each side with as many threads. What is
timed is the computation: not the reading and writing of files, nor the start of a process. `first_s` is the
first view of a grid, with its matrices still to be made; in a cohort every later patient has them.

On a machine that others use too, set OMP_WAIT_POLICY=passive for both sides. A view is 64 short parallel
regions, and by default a thread that waits for another at the end of one spins, on the core that the other
needs: at a load of 7 on two cores 6.5 times Plastimatch's time at 0°, 0.5 times where waiting threads sleep.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tests.benchmarks.harness import Measured, NotMeasured, Row, interleaved, seconds_of
from xr2ct.projection.geometry import NAMED, Geometry, column_direction, source_direction
from xr2ct.projection.projector import backproject, project
from xr2ct.projection.view_matrices import forget

GEOMETRY = NAMED["x2ct"]
CUBE_MM = 320.0
SAME = 0.01
"""Relative L2 between two projectors' pictures, above which they would not have done the same work."""


def chest(size: int, device: str = "cpu") -> Tensor:
    """Attenuation (z, y, x): an ellipsoid of water and a denser ball at its left and front."""
    z, y, x = torch.meshgrid(
        *((torch.arange(size, dtype=torch.float32, device=device) - (size - 1) / 2) * CUBE_MM / size,) * 3,
        indexing="ij",
    )
    body = 0.02 * torch.sigmoid((1 - (x / 140).square() - (y / 100).square() - (z / 150).square()) * 8)
    return body + 0.03 * torch.exp(-((x - 30).square() + (y + 20).square() + (z - 25).square()) / 800)


def against_plastimatch(
    angle: float, size: int = 256, rounds: int = 7, geometry: Geometry = GEOMETRY
) -> Measured:
    """Plastimatch's exact ray trace by its own clock, less its writing of the picture.

    "Total time" begins after the volume is read, and six views of one process take six times that of one.
    """
    if shutil.which("plastimatch") is None:
        raise NotMeasured("plastimatch is not installed (Debian package plastimatch)")
    mu, spacing = chest(size), (CUBE_MM / size,) * 3
    view = partial(project, mu[None], spacing, geometry, [angle])
    forget()
    first = seconds_of(view)
    found = view()
    back = partial(backproject, found, (size,) * 3, spacing, geometry, [angle])
    back()
    ours, peer = [], []
    with tempfile.TemporaryDirectory() as folder:
        drr = _plastimatch(Path(folder), mu, angle, geometry)
        _, picture = drr()
        for _ in range(rounds):
            ours.append(seconds_of(view))
            peer.append(drr()[0])
    return Measured(
        ours,
        peer,
        detail={
            "angle": angle,
            "threads": torch.get_num_threads(),
            "omp_wait_policy": os.environ.get("OMP_WAIT_POLICY"),
            "relative_l2": _difference(found[0, 0], picture),
            "first_s": first,
            "backproject_s": min(seconds_of(back) for _ in range(3)),
        },
    )


def _plastimatch(
    folder: Path, mu: Tensor, angle: float, geometry: Geometry
) -> Callable[[], tuple[float, Tensor]]:
    """Seconds of its computation, and the line integrals (row, col)."""
    import numpy as np
    import SimpleITK as sitk

    spacing_mm = CUBE_MM / len(mu)
    image = sitk.GetImageFromArray(mu.numpy())
    image.SetSpacing((spacing_mm,) * 3)
    image.SetOrigin((-(len(mu) - 1) / 2 * spacing_mm,) * 3)
    sitk.WriteImage(image, str(folder / "mu.mha"))
    theta, g = math.radians(angle), geometry
    command = [
        "plastimatch", "drr", "-t", "pfm", "-i", "exact", "-P", "none", "-o", "0 0 0",
        "-n", f"{math.sin(theta):.12f} {-math.cos(theta):.12f} 0",
        "--sad", str(g.sad_mm), "--sid", str(g.sid_mm),
        "-r", f"{g.pixels} {g.pixels}", "-z", f"{g.detector_mm} {g.detector_mm}",
        "-O", str(folder / "drr"), str(folder / "mu.mha"),
    ]  # fmt: skip
    threads = {"OMP_NUM_THREADS": str(torch.get_num_threads())}

    def drr() -> tuple[float, Tensor]:
        done = subprocess.run(
            command, env=os.environ | threads, check=True, capture_output=True, text=True, timeout=120
        )
        told = dict(re.findall(r"(I/O|Total) time: ([\d.e+-]+) sec", done.stdout))
        (file,) = folder.glob("drr*.pfm")
        pixels = np.frombuffer(file.read_bytes()[-4 * g.pixels**2 :], "<f4").reshape(g.pixels, g.pixels)
        return float(told["Total"]) - float(told["I/O"]), torch.from_numpy(pixels * 10)

    return drr


def against_diffdrr(
    device: str = "cpu",
    size: int = 256,
    angle: float = 0.0,
    rounds: int = 3,
    geometry: Geometry = GEOMETRY,
) -> Measured:
    """DiffDRR's trilinear renderer as it comes, 500 points a ray; its rays are made beforehand."""
    try:
        from diffdrr.renderers import Trilinear
    except ImportError:
        raise NotMeasured("DiffDRR is not installed: pip install --no-deps diffdrr==0.6.1") from None
    mu, spacing = chest(size, device), CUBE_MM / size
    source, target = _rays(angle, geometry, device)
    lengths = (target - source).norm(dim=-1)[:, None]
    voxel_source, voxel_target = (p / spacing + (size - 1) / 2 for p in (source, target))
    renderer = Trilinear()

    def ours() -> Tensor:
        return project(mu[None], (spacing,) * 3, geometry, [angle])[0, 0]

    @torch.no_grad()
    def theirs() -> Tensor:
        # It takes (x, y, z) and samples it as (z, y, x), which is how this one lies in memory.
        return renderer(mu.permute(2, 1, 0), voxel_source, voxel_target, lengths).view(geometry.pixels, -1)

    return interleaved(
        ours, theirs, rounds,
        angle=angle, threads=torch.get_num_threads(), relative_l2=_difference(ours(), theirs()),
    )  # fmt: skip


def _rays(angle: float, geometry: Geometry, device: str) -> tuple[Tensor, Tensor]:
    """Source (1, 1, 3) and pixels (1, row · col, 3), x y z in millimetres."""
    to_source, across = (
        torch.tensor(d(angle), dtype=torch.float64) for d in (source_direction, column_direction)
    )
    u = (torch.arange(geometry.pixels) + 0.5) * geometry.pixel_mm - geometry.detector_mm / 2
    centre = (geometry.sad_mm - geometry.sid_mm) * to_source
    down = torch.tensor([0.0, 0.0, -1.0], dtype=torch.float64)
    pixels = centre + u[:, None] * across + u[:, None, None] * down
    source = geometry.sad_mm * to_source
    return source.float().to(device)[None, None], pixels.float().to(device).view(1, -1, 3)


def against_reading(angle: float, device: str = "cuda", size: int = 512, calls: int = 10) -> Measured:
    """Reading the volume once at the bandwidth of a copy: half of a copy's time, which also writes."""
    mu = chest(size, device)
    there = torch.empty_like(mu)

    def views() -> None:
        for _ in range(calls):
            project(mu[None], (CUBE_MM / size,) * 3, GEOMETRY, [angle])

    def copies() -> None:
        for _ in range(calls):
            there.copy_(mu)

    both = interleaved(views, copies, rounds=7, warmup=2)
    read = [seconds / calls / 2 for seconds in both.peer]
    return Measured(
        [seconds / calls for seconds in both.ours],
        read,
        detail={"angle": angle, "bandwidth_gb_s": mu.nbytes / sorted(read)[len(read) // 2] / 1e9},
    )


def _difference(found: Tensor, expected: Tensor) -> float:
    """Relative L2; not the same work where it is above 1 %."""
    error = float((found - expected).norm() / expected.norm())
    assert error < SAME, f"pictures differ by {error:.2%}"
    return error


def _exact_row(angle: float, goal: float) -> Row:
    return Row(
        name=f"projector-exact-{angle:03.0f}",
        what=f"one view at {angle:g}°, 256³ to 256², computation",
        peer="Plastimatch 1.9.4, exact",
        ratio="ours/peer",
        goal=goal,
        measure=partial(against_plastimatch, angle),
    )


ROWS: tuple[Row, ...] = (
    *(_exact_row(angle, 1.0) for angle in (0.0, 90.0)),
    *(_exact_row(angle, 1.2) for angle in (30.0, 45.0)),
    *(
        Row(
            name=f"projector-diffdrr{'-cuda' if device == 'cuda' else ''}",
            what="one view, 256³ to 256²",
            peer="DiffDRR 0.6.1, trilinear",
            ratio="peer/ours",
            goal=10.0,
            measure=partial(against_diffdrr, device),
            device=device,
        )
        for device in ("cpu", "cuda")
    ),
    *(
        Row(
            name=name,
            what=f"one view at {angle:g}°, 512³ to 256²",
            peer="reading the volume at copy bandwidth",
            ratio="ours/peer",
            goal=3.0,
            measure=partial(against_reading, angle),
            device="cuda",
        )
        for name, angle in (("projector-512-cuda", 0.0), ("projector-512-oblique-cuda", 45.0))
    ),
)
