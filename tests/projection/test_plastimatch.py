"""Agreement with Plastimatch's exact ray trace, no flip and no scale fitted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from xr2ct.projection.geometry import NAMED, Geometry
from xr2ct.projection.projector import attenuation, project


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("geometry", NAMED.values(), ids=lambda g: g.name)
@pytest.mark.parametrize("angle", [0.0, 22.5, 45.0, 90.0, 135.0, 200.0, 270.0])
def test_an_asymmetric_volume_of_unlike_voxels(
    plastimatch_drr: Any, geometry: Geometry, angle: float
) -> None:
    spacing = (2.5, 1.3, 1.9)
    z, y, x = np.meshgrid(
        *((np.arange(n) - (n - 1) / 2) * d for n, d in zip((70, 121, 90), spacing, strict=True)),
        indexing="ij",
    )
    body = 0.02 / (1 + np.exp(((x / 70) ** 2 + (y / 55) ** 2 + (z / 70) ** 2 - 1) * 8))
    heart = 0.03 * np.exp(-((x - 30) ** 2 + (y + 20) ** 2 + (z - 25) ** 2) / (2 * 12**2))
    mu = (body + heart).astype(np.float32)

    found = project(torch.from_numpy(mu)[None], spacing, geometry, [angle])[0, 0].numpy()

    # Plastimatch takes voxels as boxes: on this volume it is the further from the closed form of the two.
    assert relative_l2(found, plastimatch_drr(mu, spacing, geometry, angle)) < 0.01


@pytest.fixture(scope="module")
def chest(real_data: Path) -> tuple[np.ndarray, tuple[float, float, float]]:
    """LIDC-IDRI-0001 as attenuation, its slices in order; its axes are the patient's."""
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(real_data / "chest" / "LIDC-IDRI-0001")))
    image = reader.Execute()
    assert image.GetDirection() == (1, 0, 0, 0, 1, 0, 0, 0, 1)
    hu = torch.from_numpy(sitk.GetArrayFromImage(image))
    return attenuation(hu).numpy(), image.GetSpacing()[::-1]


@pytest.mark.parametrize("angle", [0.0, 45.0, 90.0])
def test_a_real_chest(plastimatch_drr: Any, chest: Any, angle: float) -> None:
    mu, spacing = chest
    geometry = NAMED["x2ct"]

    found = project(torch.from_numpy(mu)[None], spacing, geometry, [angle])[0, 0].numpy()

    assert relative_l2(found, plastimatch_drr(mu, spacing, geometry, angle)) < 0.02
