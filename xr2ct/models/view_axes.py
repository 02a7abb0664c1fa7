"""Between a view's own axes, in which its network works, and the patient's, in which several views meet.

A view's axes are depth, counted from the source on, row and column of its picture. So the frames of views
90° apart are each other's rotations about z, never mirrored, and one set of weights means the same in each.
"""

from __future__ import annotations

from torch import Tensor

from xr2ct.models.lift import columns_ascend, is_lateral
from xr2ct.projection.geometry import source_direction


def to_patient(features: Tensor, angle_deg: float) -> Tensor:
    """(…, depth, row, col) of a view → (…, z, y, x): z feet to head, y front to back, x right to left.

    A view between two grid axes goes along the one nearest its beam, as `repeat` does.
    """
    turned = features.movedim(-3, -1) if is_lateral(angle_deg) else features.transpose(-3, -2)
    return turned.flip(_against(angle_deg))


def to_view(volume: Tensor, angle_deg: float) -> Tensor:
    """(…, z, y, x) → (…, depth, row, col) of a view: the inverse of `to_patient`."""
    turned = volume.flip(_against(angle_deg))
    return turned.movedim(-1, -3) if is_lateral(angle_deg) else turned.transpose(-3, -2)


def _against(angle_deg: float) -> list[int]:
    """The dimensions of (z, y, x) that rows, columns or depth count against."""
    lateral = is_lateral(angle_deg)
    across, along = (-2, -1) if lateral else (-1, -2)
    dimensions = [-3]  # rows count from the head down, always
    if not columns_ascend(angle_deg):
        dimensions.append(across)
    if source_direction(angle_deg)[0 if lateral else 1] > 0:
        dimensions.append(along)
    return dimensions
