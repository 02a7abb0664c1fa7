"""How a patient lay when a view was taken, against how the geometry takes him to have lain.

A pose turns the patient about the isocentre and then shifts him: a point r of him comes to lie at R r + t, in
LPS millimetres (x right to left, y front to back, z feet to head). R is the rotation about the axis of a
vector by its length (Rodrigues 1840), the matrix exponential of its cross product. Of a view at 0°, whose
beam runs along y: shifts along x and z move the picture, one along y magnifies it, a rotation about y turns
it, and rotations about x and z change what lies behind what.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Pose:
    """A rigid motion of the patient about the isocentre; none as it stands."""

    rotation_deg: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """About x, y and z together: a rotation vector."""
    shift_mm: tuple[float, float, float] = (0.0, 0.0, 0.0)
    """Along x, y and z, after the rotation."""

    @classmethod
    def of(cls, motion: Sequence[float] | Tensor) -> Pose:
        """From six figures: the rotation vector in degrees, then the shift in mm."""
        a, b, c, x, y, z = (float(figure) for figure in motion)
        return cls((a, b, c), (x, y, z))

    @property
    def motion(self) -> tuple[float, ...]:
        """As `of` takes it."""
        return (*self.rotation_deg, *self.shift_mm)

    @property
    def still(self) -> bool:
        """Whether the patient lay as the geometry says."""
        return not any(self.motion)

    def matrix(self) -> Tensor:
        """(3, 4) float64: R and t of r → R r + t, in mm."""
        return _matrix(torch.tensor(self.motion, dtype=torch.float64))


def move(volume: Tensor, motion: Tensor, cube_mm: float) -> Tensor:
    """A cube (z, y, x) with the patient moved in it, the isocentre at its centre.

    motion: six figures as in `Pose.of`, of the volume's type and device. Trilinear between voxels; what comes
    in over an edge is what lay at it, since a body goes on beyond the cube. Differentiable with respect to
    both. float32 or float64.
    """
    matrix = _matrix(motion)
    rotation, shift = matrix[:, :3], matrix[:, 3]
    # Where each voxel's content came from, in half sides of the cube, as grid_sample counts.
    back = torch.cat([rotation.T, (-rotation.T @ shift * (2 / cube_mm))[:, None]], dim=1)
    cube = volume[None, None]
    grid = F.affine_grid(back[None], list(cube.shape), align_corners=False)
    return F.grid_sample(cube, grid, padding_mode="border", align_corners=False)[0, 0]


def _matrix(motion: Tensor) -> Tensor:
    """(3, 4): R and t, differentiable."""
    a, b, c = motion[:3] * (math.pi / 180)
    zero = torch.zeros_like(a)
    cross = torch.stack([zero, -c, b, c, zero, -a, -b, a, zero]).view(3, 3)
    return torch.cat([torch.linalg.matrix_exp(cross), motion[3:, None]], dim=1)
