"""A spatial transformer (Jaderberg et al. 2015) for volumes, as CCX-rayNet ends in one."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from xr2ct.autocast import without_autocast


class SpatialTransformer(nn.Module):
    """Volumes (b, 1, size, size, size) → the same, each warped by an affine map found from it.

    Conv, max-pool 4³ and ReLU, twice, to 8 and to 10 channels; Linear to 32 and to the map's 12 numbers. The
    published kernel of 8³ at 128³ leaves 5³·10 = 1250 features; it is a sixteenth of the side at other sizes.
    What comes from outside of the volume is 0, air. Places are found in fp32 or above: rounded to half
    precision they would be off by voxels.
    """

    def __init__(self, size: int) -> None:
        super().__init__()
        kernel = max(1, size // 16)
        side = size
        for _ in range(2):
            side = (side - kernel + 1) // 4
        self.layers = nn.Sequential(
            nn.Conv3d(1, 8, kernel),
            nn.MaxPool3d(4),
            nn.ReLU(),
            nn.Conv3d(8, 10, kernel),
            nn.MaxPool3d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(10 * side**3, 32),
            nn.ReLU(),
        )
        self.affine = nn.Linear(32, 12)

    def start_at_identity(self) -> None:
        """Make each volume's map the identity, whatever the volume."""
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.eye(3, 4).flatten())

    def forward(self, volumes: Tensor) -> Tensor:
        theta = self.affine(self.layers(volumes)).unflatten(1, (3, 4))
        dtype = torch.promote_types(volumes.dtype, torch.float32)
        with without_autocast(volumes):
            places = F.affine_grid(theta.to(dtype), list(volumes.shape), align_corners=False)
            warped = F.grid_sample(volumes.to(dtype), places, align_corners=False)
        return warped.to(volumes.dtype)
