"""The X-ray machine of a training sample: another pose and another detector for each place in the sequence.

A network that has seen nothing but line integrals of a patient at the isocentre has never seen a radiograph.
The readers' threads do this, ahead of the step that learns from it: pictures are then the same to the bit
whatever device trains, and a GPU loses no time to them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from xr2ct.config import Augmentation
from xr2ct.errors import UserError
from xr2ct.loading.detector import draw_common, draw_response, respond
from xr2ct.loading.pose import draw_pose, draw_table, table_integrals, warp
from xr2ct.loading.reproject import Reprojector
from xr2ct.projection.geometry import Geometry
from xr2ct.seeds import generator


class Machine:
    """Takes X-rays again as `augmentation.pose` and `augmentation.detector` say.

    Raises `UserError` where the tube would come to stand in the patient.
    """

    def __init__(self, augmentation: Augmentation, geometry: Geometry, cube_mm: float) -> None:
        self._pose, self._detector = augmentation.pose, augmentation.detector
        self._geometry, self._cube_mm = geometry, cube_mm
        nearest_mm = geometry.sid_mm - geometry.sad_mm + cube_mm
        if self._pose.sid_mm and self._pose.sid_mm[0] < nearest_mm:
            raise UserError(
                f"augmentation.pose.sid_mm: {self._pose.sid_mm[0]:g} puts the tube into the patient; of "
                f"geometry {geometry.name!r} expected at least {nearest_mm:g}"
            )

    def take(
        self,
        line_integrals: np.ndarray,
        angles_deg: Sequence[float],
        whole: Callable[[], np.ndarray],
        seed: int,
    ) -> np.ndarray:
        """Views (view, row, col) float32 at `angles_deg`, and what this machine makes of them, as many.

        `whole` gives the chest in HU (z, y, x), and is asked where it is projected again. All follows from
        `seed`.
        """
        views = np.asarray(line_integrals, np.float32)
        if self._pose.on:
            views = self._posed(views, angles_deg, whole, seed)
        if self._detector.on:
            views = self._detected(views, seed)
        return views

    def _posed(
        self, views: np.ndarray, angles_deg: Sequence[float], whole: Callable[[], np.ndarray], seed: int
    ) -> np.ndarray:
        told, geometry = self._pose, self._geometry
        noise = generator(seed, "pose")
        if noise.random() >= told.probability:
            return views
        table = draw_table(told, noise)
        again = None
        if told.reproject and told.moves:
            again = Reprojector(whole(), self._cube_mm, geometry)
        posed = []
        for index, (view, angle) in enumerate(zip(views, angles_deg, strict=True)):
            pose = draw_pose(told, geometry, generator(seed, "pose", index))
            if told.moves:
                view = warp(view, pose, geometry) if again is None else again.take(view, pose, angle)
            if table:
                view = view + table_integrals(table, pose, angle, geometry)
            posed.append(view)
        return np.stack(posed)

    def _detected(self, views: np.ndarray, seed: int) -> np.ndarray:
        told = self._detector
        noise = generator(seed, "detector")
        if noise.random() >= told.probability:
            return views
        common = draw_common(told, noise)
        detected = []
        for index, view in enumerate(views):
            of_view = generator(seed, "detector", index)
            response = draw_response(told, common, of_view)
            detected.append(respond(view, response, self._geometry.pixel_mm, of_view))
        return np.stack(detected)
