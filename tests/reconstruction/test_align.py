"""Patients who moved between two X-rays, with a mapper that was fitted to others who lay still.

The mapper is a ridge regression from coarse pictures to the chest, since alignment asks no more of one, and
X-rays are projected from volumes of twice its resolution.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from xr2ct.cohorts.canonical import canonical_cubes
from xr2ct.cohorts.reader import read_volume_file
from xr2ct.projection.geometry import Geometry
from xr2ct.reconstruction.align import Aligned, align, put_right
from xr2ct.reconstruction.beams import Beams, XRays
from xr2ct.reconstruction.pose import Pose
from xr2ct.window import HuWindow

CUBE_MM = 320.0
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=64)
BEAMS = Beams(GEOMETRY, (90.0, 0.0), CUBE_MM, HuWindow())
FINE, COARSE = 48, 24
CORNER = Pose((5.0, -5.0, 5.0), (-10.0, 10.0, 10.0))
"""As far as alignment is meant for, in every direction at once."""
MOTIONS = [
    CORNER,
    Pose((-2.0, 4.0, 1.0), (8.0, -6.0, -9.0)),
    Pose((1.0, -3.0, -4.0), (-9.0, 2.0, 5.0)),
]


@cache
def chest(seed: int) -> Tensor:
    """(z, y, x) on the unit window: trunk, lungs, heart, spine and arms of a build of its own."""
    rng, size = np.random.default_rng(seed), FINE
    axis = (np.arange(size) - (size - 1) / 2) * CUBE_MM / size
    z, y, x = np.meshgrid(axis, axis, axis, indexing="ij")
    width, depth, length = rng.uniform(0.88, 1.12, 3)
    heart, spine = rng.uniform(0.85, 1.15, 2)
    x, y, z = x / width, y / depth, z / length

    def filled(centre: tuple[float, float, float], half: tuple[float, float, float]) -> np.ndarray:
        parts = zip((x, y, z), centre, half, strict=True)
        inside = 1 - np.sqrt(sum(((a - c) / h) ** 2 for a, c, h in parts))
        return np.clip(0.5 + inside * min(half) * size / CUBE_MM, 0, 1)

    unit = 0.41 * filled((0, 0, 0), (150, 105, 900))
    for side in (-1, 1):
        unit += filled((side * 68, -5, 5 * side), (48, 72, 115)) * (0.06 - unit)
    unit += filled((25, -35, -30), (48 * heart, 42 * heart, 52 * heart)) * (0.42 - unit)
    unit += filled((0, 75, 0), (18 * spine, 20 * spine, 900)) * (0.6 - unit)
    texture = F.interpolate(
        torch.from_numpy(rng.normal(0, 1, (1, 1, 9, 9, 9))), (size,) * 3, mode="trilinear"
    )
    return (
        (torch.from_numpy(unit) * (1 + 0.25 * texture[0, 0])).clamp(0, 1).float()
    )  # what no mapper can know


def seen(volume: Tensor, beams: Beams = BEAMS, *motions: Pose) -> Tensor:
    """X-rays (view, row, col) of a patient who moved as told after the first."""
    return replace(beams, poses=(Pose(), *motions) if motions else None).project(volume)


class Ridge:
    """Pictures → volume, fitted to patients who lay still."""

    def __init__(self, volumes: list[Tensor], beams: Beams = BEAMS) -> None:
        pictures = torch.stack([self._pictures(seen(v, beams)) for v in volumes])
        truths = torch.stack([coarse(v).flatten() for v in volumes])
        self.mean, self.mean_truth = pictures.mean(0), truths.mean(0)
        centred = pictures - self.mean
        gram = centred @ centred.T
        gram += 1e-2 * gram.diagonal().mean() * torch.eye(len(gram))
        self.weights = centred.T @ torch.linalg.solve(gram, truths - self.mean_truth)

    def __call__(self, line_integrals: Tensor) -> Tensor:
        flat = self._pictures(line_integrals) - self.mean
        return (self.mean_truth + flat @ self.weights).view((COARSE,) * 3).clamp(0, 1)

    @staticmethod
    def _pictures(views: Tensor) -> Tensor:
        """Views by their own maximum, as a mapper sees them."""
        return F.avg_pool2d(views / views.amax((-2, -1), keepdim=True), 4).flatten()


def coarse(volume: Tensor) -> Tensor:
    return F.avg_pool3d(volume[None], FINE // COARSE)[0]


def psnr(volume: Tensor, truth: Tensor) -> float:
    return float(-10 * (volume - coarse(truth)).square().mean().log10())


@pytest.fixture(scope="module")
def mapper() -> Ridge:
    return Ridge([chest(seed) for seed in range(48)])


def psnr_path(mapper: Ridge, truth: Tensor, motion: Pose) -> tuple[Aligned, float, float]:
    """What came of it, and the PSNR that the motion cost and that came back."""
    moved = seen(truth, BEAMS, motion)
    aligned = align(mapper, XRays(moved), BEAMS, 3)
    before = psnr(mapper(moved), truth)
    return aligned, psnr(mapper(seen(truth)), truth) - before, psnr(aligned.unit, truth) - before


def miss(found: Pose, true: Pose) -> Tensor:
    """Six figures, degrees and mm."""
    return torch.tensor(found.motion) - torch.tensor(true.motion)


class TestMoved:
    @pytest.fixture(scope="class")
    def results(self, mapper: Ridge) -> list[tuple[Aligned, float, float]]:
        return [psnr_path(mapper, chest(100 + i), motion) for i, motion in enumerate(MOTIONS)]

    def test_most_of_what_motion_cost_comes_back(self, results: list[tuple[Aligned, float, float]]) -> None:
        lost, back = (sum(r[k] for r in results) for k in (1, 2))
        assert lost > 4
        assert back > 0.7 * lost
        assert all(r[2] > 0 for r in results)

    def test_poses_are_found(self, results: list[tuple[Aligned, float, float]]) -> None:
        """Best in the view's plane, worst along its beam and about the vertical axis."""
        misses = torch.stack([miss(r[0].poses[1], m) for r, m in zip(results, MOTIONS, strict=True)])
        rms = misses.square().mean(0).sqrt()
        assert rms[1] < 1.5
        assert rms[[3, 5]].max() < 2.5
        assert rms[[0, 2]].max() < 3.5
        assert rms[4] < 5

    def test_the_volume_with_its_poses_fits_what_was_measured(
        self, results: list[tuple[Aligned, float, float]]
    ) -> None:
        for aligned, _, _ in results:
            assert aligned.error_after < 0.75 * aligned.error_before
            assert aligned.poses[0].still
            assert 1 <= aligned.rounds <= 3

    def test_the_volume_is_the_mappers_of_the_views_put_right(
        self, mapper: Ridge, results: list[tuple[Aligned, float, float]]
    ) -> None:
        for place, (aligned, _, _) in enumerate(results):
            assert torch.equal(mapper(aligned.line_integrals), aligned.unit)
            assert torch.equal(aligned.line_integrals[0], seen(chest(100 + place))[0])

    def test_of_three_views_the_moved_one_is_found(self) -> None:
        """Along a view's own beam its pose is vague, so what is said here is of the others."""
        three = replace(BEAMS, angles_deg=(90.0, 0.0, 180.0))
        mapper = Ridge([chest(seed) for seed in range(48)], three)
        moved = seen(chest(100), three, Pose(), MOTIONS[1])
        aligned = align(mapper, XRays(moved), three, 2)
        still, found = (torch.tensor(pose.motion)[[1, 3, 5]] for pose in aligned.poses[1:])
        assert (found - torch.tensor(MOTIONS[1].motion)[[1, 3, 5]]).abs().max() < 4
        assert still.abs().max() < 3


class TestUnmoved:
    @pytest.mark.parametrize("seed", [200, 201, 202, 203])
    def test_a_patient_who_lay_still_is_left_alone(self, mapper: Ridge, seed: int) -> None:
        views = seen(chest(seed))
        aligned = align(mapper, XRays(views), BEAMS, 3)
        assert all(pose.still for pose in aligned.poses)
        assert torch.equal(aligned.unit, mapper(views))
        assert torch.equal(aligned.line_integrals, views)
        assert aligned.error_after == aligned.error_before

    def test_no_rounds_and_a_single_view_leave_all_as_it_is(self, mapper: Ridge) -> None:
        moved = seen(chest(100), BEAMS, CORNER)
        aligned = align(mapper, XRays(moved), BEAMS, 0)
        assert torch.equal(aligned.unit, mapper(moved))
        assert (aligned.poses, aligned.rounds) == ((Pose(), Pose()), 0)
        alone = replace(BEAMS, angles_deg=(0.0,))
        one = align(Ridge([chest(0), chest(1)], alone), XRays(seen(chest(2), alone)), alone, 3)
        assert (one.poses, one.rounds) == ((Pose(),), 0)


class TestMeasurement:
    def test_what_was_not_seen_does_not_count(self, mapper: Ridge) -> None:
        """A blade over a third of the second view, where the detector read nonsense."""
        moved = seen(chest(102), BEAMS, MOTIONS[2])
        kept = torch.ones_like(moved, dtype=torch.bool)
        kept[1, :8] = False
        spoilt = torch.where(kept, moved, 20.0)

        def through(views: Tensor) -> Tensor:
            return mapper(torch.where(kept, views, moved))

        told, all_told = (align(through, XRays(v, kept), BEAMS, 1) for v in (spoilt, moved))
        assert not told.poses[1].still
        assert miss(told.poses[1], all_told.poses[1]).abs().max() < 0.05

    def test_gain_and_offset_of_a_radiograph_do_not_count(self, mapper: Ridge) -> None:
        moved = seen(chest(102), BEAMS, MOTIONS[2])

        def through(views: Tensor) -> Tensor:
            return mapper((views - 3.0) / 40.0)

        known = align(mapper, XRays(moved, calibrated=False), BEAMS, 1)
        aligned = align(through, XRays(40 * moved + 3.0, calibrated=False), BEAMS, 1)
        assert miss(aligned.poses[1], MOTIONS[2])[[3, 5]].abs().max() < 4
        assert miss(aligned.poses[1], known.poses[1]).abs().max() < 1


class TestPutRight:
    def test_of_the_patient_himself_it_is_the_view_at_rest(self) -> None:
        truth = chest(100)
        moved, still = seen(truth, BEAMS, CORNER), seen(truth)
        right = put_right(XRays(moved), BEAMS, truth, (Pose(), CORNER))
        torch.testing.assert_close(right, still, atol=2e-3, rtol=0)
        assert (moved - still).abs().max() > 0.5

    def test_details_that_no_volume_explains_are_carried_along(self) -> None:
        """A thin plate in the isocentre's plane, which the volume knows nothing of: exact but for pixels."""
        plate = torch.zeros(FINE, FINE, FINE)
        plate[15:33, 23:25, 12:32] = 0.5
        motion = Pose((0.0, 6.0, 0.0), (9.0, 0.0, -12.0))
        still, moved = seen(plate), seen(plate, BEAMS, motion)
        right = put_right(XRays(moved), BEAMS, torch.zeros_like(plate), (Pose(), motion))
        assert (right[1] - still[1]).norm() < 0.2 * (moved[1] - still[1]).norm()
        assert torch.equal(right[0], moved[0])

    def test_a_mean_patient_is_nearer_than_nothing_done(self) -> None:
        truth, other = chest(100), chest(101)
        moved, still = seen(truth, BEAMS, CORNER), seen(truth)
        right = put_right(XRays(moved), BEAMS, other, (Pose(), CORNER))
        assert (right - still).norm() < 0.35 * (moved - still).norm()


class TestRealChest:
    def test_a_real_patients_motion_is_undone(self, real_data: Path) -> None:
        native = read_volume_file(real_data / "chest" / "ct-64" / "ct-64.nrrd")
        hu = canonical_cubes(native, [FINE], CUBE_MM).cubes[FINE]
        patient = HuWindow().to_unit(torch.from_numpy(hu).float())
        rng = np.random.default_rng(0)
        others = [stretched(patient, rng.uniform(0.88, 1.12, 3), rng) for _ in range(48)]
        mapper = Ridge(others)

        results = [psnr_path(mapper, patient, motion) for motion in MOTIONS[:2]]

        lost, back = (sum(r[k] for r in results) for k in (1, 2))
        assert lost > 2
        assert back > 0.5 * lost
        assert torch.equal(align(mapper, XRays(seen(patient)), BEAMS, 1).unit, mapper(seen(patient)))


def stretched(volume: Tensor, by: np.ndarray, rng: np.random.Generator) -> Tensor:
    """A volume (z, y, x) of another build, and with other details."""
    matrix = torch.cat([torch.diag(torch.from_numpy(1 / by)), torch.zeros(3, 1)], dim=1).float()
    grid = F.affine_grid(matrix[None], [1, 1, *volume.shape], align_corners=False)
    built = F.grid_sample(volume[None, None], grid, padding_mode="border", align_corners=False)[0, 0]
    texture = torch.from_numpy(rng.normal(0, 0.15, (1, 1, 9, 9, 9))).float()
    return (built * (1 + F.interpolate(texture, list(volume.shape), mode="trilinear")[0, 0])).clamp(0, 1)
