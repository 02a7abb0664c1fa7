"""Where tube, patient and table were otherwise than the geometry says, and a view moved accordingly.

A view's own axes are: right, along its columns; up, to the head; away, from the source. Moving a picture in
its plane is right for what lies at the isocentre's depth; what lies nearer or further moves a little more or
less, which `reproject` puts right.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from xr2ct.config import Pose as Told
from xr2ct.projection.geometry import Geometry, column_direction, source_direction
from xr2ct.projection.projector import WATER_PER_MM

TABLE_MM = 20.0
"""From front to back."""
TABLE_WIDTH_MM = 530.0


@dataclass(frozen=True)
class Pose:
    """Of one exposure: the tube, and the patient's motion from where the geometry has him."""

    sad_mm: float
    sid_mm: float
    right_mm: float = 0.0
    down_mm: float = 0.0
    away_mm: float = 0.0
    roll_deg: float = 0.0
    """In the plane of the picture, counter-clockwise as it is looked at (row 0 on top)."""
    turn_deg: float = 0.0
    """About the axis up, right to away."""
    tilt_deg: float = 0.0
    """About the axis right, up to away."""

    @property
    def magnification(self) -> float:
        """Of what was at the isocentre."""
        return self.sid_mm / (self.sad_mm + self.away_mm)


@dataclass(frozen=True)
class Table:
    """A slab behind the patient, endless from head to feet."""

    water_mm: float
    """Water that attenuates as much from front to back."""
    y_mm: float
    """From the isocentre to its front."""


def draw_table(told: Told, noise: np.random.Generator) -> Table | None:
    """Of a patient; None where there is none."""
    there, water, y = noise.random(3)
    if told.table is None or there >= told.table_probability:
        return None
    (thin, thick), (near, far) = told.table, told.table_y_mm
    return Table(thin + (thick - thin) * float(water), near + (far - near) * float(y))


def draw_pose(told: Told, geometry: Geometry, noise: np.random.Generator) -> Pose:
    """Of one view."""
    # As many draws whatever is switched on: switching one off leaves the others as they were.
    distance, *shares = noise.random(7).tolist()
    low, high = told.sid_mm or (geometry.sid_mm, geometry.sid_mm)
    sid_mm = low + (high - low) * distance
    right, down, away, roll, turn, tilt = (2 * share - 1 for share in shares)
    return Pose(
        sad_mm=sid_mm - (geometry.sid_mm - geometry.sad_mm),
        sid_mm=sid_mm,
        right_mm=told.shift_mm * right,
        down_mm=told.shift_mm * down,
        away_mm=told.shift_mm * away,
        roll_deg=told.rotation_deg * roll,
        turn_deg=told.turn_deg * turn,
        tilt_deg=told.turn_deg * tilt,
    )


def warp(view: np.ndarray, pose: Pose, geometry: Geometry) -> np.ndarray:
    """A view (row, col) taken by `geometry`, float32, as in `pose` so far as that lies in its plane.

    What comes in from beyond the detector's edge goes on as the edge was. `turn_deg` and `tilt_deg` are not
    looked at.
    """
    t = math.radians(pose.roll_deg)
    back = np.array([[math.cos(t), math.sin(t)], [-math.sin(t), math.cos(t)]])  # of (down, right)
    matrix = back * (geometry.magnification / pose.magnification)
    shift = back @ (pose.down_mm, pose.right_mm) * (geometry.magnification / geometry.pixel_mm)
    centre = np.full(2, (geometry.pixels - 1) / 2)
    offset = centre - matrix @ centre - shift
    return np.asarray(ndimage.affine_transform(view, matrix, offset, order=1, mode="nearest"))


def table_integrals(table: Table, pose: Pose, angle_deg: float, geometry: Geometry) -> np.ndarray:
    """Line integrals (row, col) float32 of the table alone, from the tube to the detector's pixels."""
    along, across = -np.array(source_direction(angle_deg)), np.array(column_direction(angle_deg))
    mm = (np.arange(geometry.pixels) - (geometry.pixels - 1) / 2) * geometry.pixel_mm
    tube = -pose.sad_mm * along
    rays = pose.sid_mm * along + mm[:, None] * across  # of each column, tube to detector
    enters, leaves = np.zeros(geometry.pixels), np.ones(geometry.pixels)
    half = TABLE_WIDTH_MM / 2
    for axis, (low, high) in enumerate(((-half, half), (table.y_mm, table.y_mm + TABLE_MM))):
        slope = np.where(abs(rays[:, axis]) < 1e-9, 1e-9, rays[:, axis])
        faces = np.sort([(low - tube[axis]) / slope, (high - tube[axis]) / slope], axis=0)
        enters, leaves = np.maximum(enters, faces[0]), np.minimum(leaves, faces[1])
    within = (leaves - enters).clip(min=0)
    lengths = np.sqrt(pose.sid_mm**2 + mm[:, None] ** 2 + mm**2)
    return np.asarray(lengths * within * (WATER_PER_MM * table.water_mm / TABLE_MM), np.float32)
