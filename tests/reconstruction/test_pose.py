"""A moved patient against the same patient drawn where he moved to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from xr2ct.projection.geometry import Geometry
from xr2ct.reconstruction.beams import Beams
from xr2ct.reconstruction.pose import Pose, move
from xr2ct.window import HuWindow

CUBE_MM = 320.0
COARSE = Geometry("coarse", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=32)
CENTRES = np.array([[60.0, -25.0, 40.0], [-45.0, 50.0, -30.0], [10.0, 20.0, 75.0]])
"""LPS, mm; no two of a pose's errors of sign or order would leave all of them where they belong."""
SIGMA_MM = 24.0


def blobs(centres: np.ndarray, size: int = 48) -> Tensor:
    """(z, y, x) float64: a Gaussian of 24 mm at each centre."""
    axis = (np.arange(size) - (size - 1) / 2) * CUBE_MM / size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    points = np.stack([x, y, z], axis=-1)
    heights = np.linspace(0.4, 0.8, len(centres))
    parts = [
        h * np.exp(-((points - c) ** 2).sum(-1) / (2 * SIGMA_MM**2))
        for h, c in zip(heights, centres, strict=True)
    ]
    return torch.from_numpy(np.sum(parts, axis=0))


def turned(points: np.ndarray, axis: int, degrees: float) -> np.ndarray:
    """About x, y or z by the right hand, written out: y to z, z to x, x to y."""
    first, second = (axis + 1) % 3, (axis + 2) % 3
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    result = points.copy()
    result[:, first] = c * points[:, first] - s * points[:, second]
    result[:, second] = s * points[:, first] + c * points[:, second]
    return result


def beams(poses: tuple[Pose, ...] | None, angles: tuple[float, ...] = (90.0, 0.0)) -> Beams:
    return Beams(COARSE, angles, CUBE_MM, HuWindow(), poses)


def relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


class TestMotion:
    @pytest.mark.parametrize("axis", range(3))
    def test_a_turn_about_each_axis_and_a_shift_take_the_patient_where_they_say(self, axis: int) -> None:
        shift = (9.0, -14.0, 21.0)
        rotation = [0.0, 0.0, 0.0]
        rotation[axis] = 25.0
        pose = Pose((rotation[0], rotation[1], rotation[2]), shift)

        moved = move(blobs(CENTRES), torch.tensor(pose.motion, dtype=torch.float64), CUBE_MM)

        there = turned(CENTRES, axis, 25.0) + shift
        assert relative(moved, blobs(there)) < 0.03
        matrix = pose.matrix().numpy()
        np.testing.assert_allclose(CENTRES @ matrix[:, :3].T + matrix[:, 3], there, atol=1e-9)

    def test_a_rotation_vector_turns_about_itself(self) -> None:
        pose = Pose((3.0, -4.0, 12.0))
        axis = torch.tensor(pose.rotation_deg, dtype=torch.float64)
        rotation = pose.matrix()[:, :3]
        torch.testing.assert_close(rotation @ axis, axis)
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(3, dtype=torch.float64))
        assert np.degrees(np.arccos((float(rotation.trace()) - 1) / 2)) == pytest.approx(13.0)

    def test_no_motion_leaves_the_volume(self) -> None:
        volume = blobs(CENTRES, 17)
        torch.testing.assert_close(move(volume, torch.zeros(6, dtype=torch.float64), CUBE_MM), volume)
        assert Pose().still and not Pose((0.0, 0.0, 0.1)).still

    def test_a_body_goes_on_beyond_the_cube(self) -> None:
        inside = torch.full((16, 16, 16), 0.4)
        moved = move(inside, torch.tensor([5.0, 5.0, 5.0, 10.0, 10.0, 10.0]), CUBE_MM)
        torch.testing.assert_close(moved, inside)

    def test_gradients_with_respect_to_volume_and_motion(self) -> None:
        torch.manual_seed(0)
        volume = torch.rand(6, 5, 7, dtype=torch.float64, requires_grad=True)
        motion = torch.tensor([2.0, -3.0, 4.0, 7.0, -5.0, 3.0], dtype=torch.float64, requires_grad=True)
        assert torch.autograd.gradcheck(lambda v, m: move(v, m, 80.0), (volume, motion))


class TestBeams:
    def test_each_view_is_of_the_patient_as_he_lay_for_it(self) -> None:
        pose = Pose((4.0, -5.0, 3.0), (-10.0, 8.0, 6.0))
        matrix = pose.matrix().numpy()
        there = CENTRES @ matrix[:, :3].T + matrix[:, 3]

        views = beams((Pose(), pose)).project(blobs(CENTRES))

        still = beams(None)
        expected = torch.stack([still.project(blobs(CENTRES))[0], still.project(blobs(there))[1]])
        assert relative(views, expected) < 0.01
        assert relative(still.project(blobs(CENTRES)), expected) > 0.1

    @pytest.mark.parametrize(
        ("angle", "shift"),
        [
            (0.0, (0.0, 10.0, 0.0)),
            (0.0, (0.0, -10.0, 0.0)),
            (90.0, (10.0, 0.0, 0.0)),
            (90.0, (-10.0, 0.0, 0.0)),
        ],
    )
    def test_a_shift_along_the_beam_magnifies(self, angle: float, shift: tuple[float, float, float]) -> None:
        """By SAD over what is left of it to the source; the source is in front at 0°, at the left at 90°."""
        volume = blobs(np.array([[0.0, 0.0, -60.0], [0.0, 0.0, 60.0]]))
        towards = -shift[1] if angle == 0 else shift[0]

        def spread(poses: tuple[Pose, ...] | None) -> float:
            rows = beams(poses, (angle,)).project(volume)[0].sum(1).numpy()
            at = np.arange(len(rows)) - (len(rows) - 1) / 2
            return float(np.sqrt((rows * at**2).sum() / rows.sum()))

        ratio = spread((Pose(shift_mm=shift),)) / spread(None)
        assert ratio == pytest.approx(COARSE.sad_mm / (COARSE.sad_mm - towards), abs=0.003)

    def test_a_still_patient_is_as_without_poses(self) -> None:
        volume = blobs(CENTRES, 16)
        assert torch.equal(beams((Pose(), Pose())).project(volume), beams(None).project(volume))

    def test_gradient_with_respect_to_the_volume_is_the_adjoints(self) -> None:
        torch.manual_seed(0)
        posed = beams((Pose(), Pose((4.0, -5.0, 3.0), (-10.0, 8.0, 6.0))))
        volume = (0.3 + 0.4 * torch.rand(8, 8, 8, dtype=torch.float64)).requires_grad_()
        step = torch.randn(8, 8, 8, dtype=torch.float64) * 1e-4
        weights = torch.rand(2, COARSE.pixels, COARSE.pixels, dtype=torch.float64)

        views = posed.project(volume)
        (gradient,) = torch.autograd.grad((views * weights).sum(), volume)

        change = ((posed.project(volume.detach() + step) - views.detach()) * weights).sum()
        assert float((gradient * step).sum()) == pytest.approx(float(change), rel=1e-9)
