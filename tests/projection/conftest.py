"""Plastimatch as an independent projector, and the rays of a view from the written convention alone."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from xr2ct.projection.geometry import Geometry

Drr = Callable[[np.ndarray, tuple[float, float, float], Geometry, float], np.ndarray]


@pytest.fixture
def plastimatch_drr(tmp_path: Path) -> Drr:
    """``(mu (z, y, x), spacing, geometry, angle) -> line integrals (row, col)`` by Plastimatch's exact trace.

    With ``-P none`` its picture is 0.1 · ∫ value dl; ``-n`` is the direction from isocentre to source.
    """
    if shutil.which("plastimatch") is None:
        pytest.skip("plastimatch is not installed (Debian package plastimatch)")

    def drr(
        mu: np.ndarray, spacing: tuple[float, float, float], geometry: Geometry, angle: float
    ) -> np.ndarray:
        image = sitk.GetImageFromArray(mu.astype(np.float32))
        image.SetSpacing(spacing[::-1])
        image.SetOrigin([-(n - 1) / 2 * d for n, d in zip(mu.shape, spacing, strict=True)][::-1])
        sitk.WriteImage(image, str(tmp_path / "mu.mha"))
        theta = np.radians(angle)
        command = [
            "plastimatch", "drr", "-t", "pfm", "-i", "exact", "-P", "none", "-o", "0 0 0",
            "-n", f"{np.sin(theta):.12f} {-np.cos(theta):.12f} 0",
            "--sad", str(geometry.sad_mm), "--sid", str(geometry.sid_mm),
            "-r", f"{geometry.pixels} {geometry.pixels}",
            "-z", f"{geometry.detector_mm} {geometry.detector_mm}",
            "-O", str(tmp_path / "drr"), str(tmp_path / "mu.mha"),
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)
        (file,) = tmp_path.glob("drr*.pfm")
        *_, width_height, _, pixels = file.read_bytes().split(b"\n", 3)
        width, height = map(int, width_height.split())
        return np.frombuffer(pixels, "<f4").reshape(height, width) * 10

    return drr
