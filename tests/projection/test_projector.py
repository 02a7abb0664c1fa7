"""The projector against closed forms, and its gradient against what an adjoint must be."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from xr2ct.projection.geometry import EIGHT_ANGLES, NAMED, Geometry, mirror_angle
from xr2ct.projection.projector import attenuation, backproject, outside_beam, project

X2CT = NAMED["x2ct"]
COARSE = Geometry("coarse", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=48)
ANGLES = (*EIGHT_ANGLES, 22.5, 200.0)
GRIDS = [((64, 64, 64), (5.0, 5.0, 5.0)), ((21, 50, 37), (9.0, 4.0, 6.5)), ((60, 33, 80), (3.0, 7.0, 3.0))]


def rays(geometry: Geometry, angle: float) -> tuple[np.ndarray, np.ndarray]:
    """Source (3) and unit directions (row, col, 3) in LPS, written from the stated convention."""
    theta = np.radians(angle)
    to_source = np.array([np.sin(theta), -np.cos(theta), 0.0])
    across = np.array([np.cos(theta), np.sin(theta), 0.0])
    u = (np.arange(geometry.pixels) + 0.5) * geometry.pixel_mm - geometry.detector_mm / 2
    pixels = -geometry.sid_mm * to_source + u[:, None] * across - u[:, None, None] * np.array([0.0, 0.0, 1.0])
    return geometry.sad_mm * to_source, pixels / np.linalg.norm(pixels, axis=-1, keepdims=True)


def grid(shape: tuple[int, ...], spacing: tuple[float, ...]) -> list[np.ndarray]:
    """z, y, x of voxel centres about the volume's centre."""
    axes = [(np.arange(n) - (n - 1) / 2) * d for n, d in zip(shape, spacing, strict=True)]
    return np.meshgrid(*axes, indexing="ij")


def view(volume: np.ndarray, spacing: tuple[float, ...], geometry: Geometry, angle: float) -> np.ndarray:
    mu = torch.from_numpy(np.asarray(volume, np.float64))[None]
    return project(mu, spacing, geometry, [angle])[0, 0].numpy()


def relative_l2(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def box_chords(half: np.ndarray, source: np.ndarray, directions: np.ndarray) -> np.ndarray:
    """Length of each ray inside a box of half-sides `half` (x, y, z) about the origin."""
    with np.errstate(divide="ignore"):
        ends = np.stack([(-half - source) / directions, (half - source) / directions])
    return np.clip(ends.max(0).min(-1) - ends.min(0).max(-1), 0, None)


class TestClosedForms:
    @pytest.mark.parametrize("angle", ANGLES)
    @pytest.mark.parametrize(("shape", "spacing"), GRIDS)
    def test_gaussian_off_every_axis(
        self, shape: tuple[int, ...], spacing: tuple[float, ...], angle: float
    ) -> None:
        """Position, magnification, units and ray lengths at once, with unlike voxels."""
        centre, sigma = np.array([19.0, -23.0, 14.0]), 18.0
        z, y, x = grid(shape, spacing)
        blob = np.exp(-((x - centre[0]) ** 2 + (y - centre[1]) ** 2 + (z - centre[2]) ** 2) / (2 * sigma**2))
        source, directions = rays(COARSE, angle)
        offset = centre - source
        squared = offset @ offset - (directions @ offset) ** 2
        expected = sigma * np.sqrt(2 * np.pi) * np.exp(-squared / (2 * sigma**2))

        # Linear interpolation widens the blob by a sixth of the voxel's square: 4 % at half a sigma.
        assert relative_l2(view(blob, spacing, COARSE, angle), expected) < 0.25 * (max(spacing) / sigma) ** 2

    @pytest.mark.parametrize("angle", [0.0, 90.0, 180.0, 270.0])
    def test_rays_through_two_opposite_faces_of_a_box_are_exact(self, angle: float) -> None:
        spacing = (3.0, 4.0, 5.0)
        source, directions = rays(X2CT, angle)
        half = np.array([30 * 5.0, 30 * 4.0, 50 * 3.0]) / 2
        chords = box_chords(half, source, directions)
        # One voxel off the edges, where interpolation begins.
        along, across = (0, 1) if angle in (90.0, 270.0) else (1, 0)
        faces = np.abs(source[along]) + np.array([-half[along], half[along]])
        lateral, vertical = (
            np.abs(directions[..., axis, None] / directions[..., along, None] * faces).max(-1)
            for axis in (across, 2)
        )
        inside = (lateral < half[across] - 5.0) & (vertical < half[2] - 5.0)
        found = view(np.ones((50, 30, 30)), spacing, X2CT, angle)

        assert inside.sum() > 1000
        np.testing.assert_allclose(found[inside], chords[inside], rtol=1e-12)
        assert relative_l2(found, chords) < 0.03

    @pytest.mark.parametrize("angle", [0.0, 30.0, 45.0, 225.0])
    def test_box_converges_to_its_chords(self, angle: float) -> None:
        source, directions = rays(COARSE, angle)
        chords = box_chords(np.array([60.0, 40.0, 50.0]), source, directions)
        coarse, fine = (
            relative_l2(view(np.ones((n, n, n)), (100 / n, 80 / n, 120 / n), COARSE, angle), chords)
            for n in (16, 64)
        )
        assert fine < 0.02
        assert fine < coarse / 2

    @pytest.mark.parametrize("angle", [0.0, 45.0, 60.0])
    def test_sphere(self, angle: float) -> None:
        radius, spacing = 70.0, (3.0, 2.5, 2.0)
        z, y, x = grid((56, 64, 80), spacing)
        ball = np.clip((radius - np.sqrt(x**2 + y**2 + z**2)) / 2.5 + 0.5, 0, 1)
        source, directions = rays(COARSE, angle)
        squared = source @ source - (directions @ source) ** 2
        chords = 2 * np.sqrt(np.clip(radius**2 - squared, 0, None))

        assert relative_l2(view(ball, spacing, COARSE, angle), chords) < 0.02

    def test_nothing_beyond_the_detector_or_behind_the_source(self) -> None:
        """A volume larger than the machine: only what lies between source and detector counts."""
        near = Geometry("near", sad_mm=50.0, sid_mm=80.0, detector_mm=10.0, pixels=5)
        beyond, between, behind = np.zeros((3, 9, 201, 9))
        beyond[:, 140:], between[:, 60:120], behind[:, :45] = 1, 1, 1

        assert not view(beyond, (1.0, 1.0, 1.0), near, 0.0).any()
        assert view(between, (1.0, 1.0, 1.0), near, 0.0)[2, 2] == pytest.approx(60.0)
        assert not view(behind, (1.0, 1.0, 1.0), near, 0.0).any()

    def test_attenuation(self) -> None:
        hu = torch.tensor([-2048, -1000, -900, 0, 1500], dtype=torch.int16)
        torch.testing.assert_close(attenuation(hu), torch.tensor([0, 0, 0.002, 0.02, 0.05]))
        assert attenuation(hu.double()).dtype == torch.float64


class TestSymmetries:
    @pytest.mark.parametrize("angle", ANGLES)
    def test_mirrored_patient_is_the_flipped_view_of_the_mirror_angle(self, angle: float) -> None:
        volume = np.random.default_rng(0).random((21, 34, 37))
        spacing = (9.0, 4.0, 6.5)
        mirrored = view(volume[:, :, ::-1].copy(), spacing, COARSE, angle)
        flipped = view(volume, spacing, COARSE, mirror_angle(angle))[:, ::-1]
        np.testing.assert_allclose(mirrored, flipped, rtol=1e-10, atol=1e-9)

    def test_turned_patient(self) -> None:
        """A quarter turn of a cube about its axis is a quarter turn of the angle."""
        volume = np.random.default_rng(1).random((20, 30, 30))
        turned = np.rot90(volume, axes=(2, 1)).copy()  # what was at the front (−y) comes to the left (+x)
        for angle in (0.0, 20.0, 45.0):
            np.testing.assert_allclose(
                view(turned, (9.0, 6.0, 6.0), COARSE, angle + 90),
                view(volume, (9.0, 6.0, 6.0), COARSE, angle),
                rtol=1e-9,
                atol=1e-8,
            )


class TestAdjoint:
    @pytest.mark.parametrize(("shape", "spacing"), GRIDS)
    def test_dot_product(self, shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> None:
        random = torch.Generator().manual_seed(0)
        volumes = torch.rand(2, *shape, dtype=torch.float64, generator=random)
        images = torch.rand(2, len(ANGLES), 48, 48, dtype=torch.float64, generator=random)
        there = (project(volumes, spacing, COARSE, ANGLES) * images).sum()
        back = (volumes * backproject(images, shape, spacing, COARSE, ANGLES)).sum()
        assert abs(there - back) < 1e-12 * abs(there)

    def test_first_and_second_gradients(self) -> None:
        geometry = Geometry("tiny", sad_mm=50.0, sid_mm=90.0, detector_mm=30.0, pixels=4)
        spacing, angles = (3.0, 2.0, 2.5), (0.0, 65.0)
        random = torch.Generator().manual_seed(0)
        volumes = torch.rand(2, 2, 3, 3, dtype=torch.float64, generator=random).requires_grad_()
        images = torch.rand(2, 2, 4, 4, dtype=torch.float64, generator=random).requires_grad_()

        def forward(mu: Tensor) -> Tensor:
            return project(mu, spacing, geometry, angles).pow(2)

        def back(x: Tensor) -> Tensor:
            return backproject(x, (2, 3, 3), spacing, geometry, angles).pow(2)

        for function, argument in ((forward, volumes), (back, images)):
            assert torch.autograd.gradcheck(function, (argument,))
            assert torch.autograd.gradgradcheck(function, (argument,), fast_mode=True)


class TestBatches:
    def test_volumes_and_views_are_independent_and_threads_change_nothing(self) -> None:
        volumes = torch.rand(3, 20, 30, 25)
        spacing, angles = (9.0, 6.0, 7.0), (0.0, 45.0, 270.0)
        together = project(volumes, spacing, COARSE, angles)
        back = backproject(together, (20, 30, 25), spacing, COARSE, angles)
        threads = torch.get_num_threads()
        torch.set_num_threads(2 if threads == 1 else 1)
        try:
            for b in range(3):
                alone = [project(volumes[b : b + 1], spacing, COARSE, [a]) for a in angles]
                assert torch.equal(torch.cat(alone, 1)[0], together[b])
            assert torch.equal(backproject(together, (20, 30, 25), spacing, COARSE, angles), back)
        finally:
            torch.set_num_threads(threads)

    def test_single_precision_is_close_to_double(self) -> None:
        volumes = torch.rand(1, 40, 40, 40)
        single = project(volumes, (8.0, 8.0, 8.0), COARSE, ANGLES)
        double = project(volumes.double(), (8.0, 8.0, 8.0), COARSE, ANGLES)
        assert single.dtype == torch.float32
        assert (single - double).norm() < 1e-6 * double.norm()

    def test_inside_autocast_nothing_is_rounded(self) -> None:
        volumes = torch.rand(1, 8, 8, 8)
        outside = project(volumes, (30.0, 30.0, 30.0), COARSE, [45.0])
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(project(volumes, (30.0, 30.0, 30.0), COARSE, [45.0]), outside)

    def test_wrong_shapes_and_types(self) -> None:
        cube = torch.rand(4, 4, 4)
        with pytest.raises(ValueError, match=r"\(batch, z, y, x\), got \(4, 4, 4\)"):
            project(cube, (1.0, 1.0, 1.0), COARSE, [0.0])
        with pytest.raises(ValueError, match="float32 or float64, got"):
            project(cube[None].bfloat16(), (1.0, 1.0, 1.0), COARSE, [0.0])
        with pytest.raises(ValueError, match=r"expected \(batch, 2, 48, 48\), got \(1, 1, 48, 48\)"):
            backproject(torch.rand(1, 1, 48, 48), (4, 4, 4), (1.0, 1.0, 1.0), COARSE, [0.0, 90.0])
        with pytest.raises(ValueError, match="three positive"):
            project(cube[None], (1.0, 0.0, 1.0), COARSE, [0.0])


class TestOutsideBeam:
    def test_a_thin_slab_at_the_isocentre(self) -> None:
        """The detector sees 285 mm at the isocentre."""
        body = torch.ones(40, 1, 400, dtype=torch.bool)
        seen = 500 * 541 / 949
        (frontal,) = outside_beam(body, (1.0, 1.0, 1.0), X2CT, [0.0])
        assert frontal == pytest.approx(1 - seen / 400, abs=2 / 400)

    def test_depth_and_isocentre_count(self) -> None:
        body = torch.zeros(300, 201, 3, dtype=torch.bool)
        body[:, 0] = True  # 100 mm towards the source at 0°
        front, back = (outside_beam(body, (1.0, 1.0, 1.0), X2CT, [angle])[0] for angle in (0.0, 180.0))
        assert front == pytest.approx(1 - 500 * 441 / 949 / 300, abs=2 / 300)
        assert back == 0  # 337 mm are seen there
        moved = outside_beam(body, (1.0, 1.0, 1.0), X2CT, [180.0], isocentre_mm=(0.0, 100.0, 1.0))
        assert moved[0] == pytest.approx(1 - 500 * 641 / 949 / 2 / 300, abs=2 / 300)

    def test_agrees_with_the_projector(self) -> None:
        """Voxels that no pixel sees get nothing back."""
        shape, spacing = (40, 40, 40), (10.0, 10.0, 10.0)
        body = torch.from_numpy(np.hypot(*grid(shape, spacing)[1:]) < 190)
        fine = Geometry("fine", sad_mm=541.0, sid_mm=949.0, detector_mm=500.0, pixels=256)
        for angle in (0.0, 45.0):
            hit = backproject(torch.ones(1, 1, 256, 256), shape, spacing, fine, [angle])[0] > 0
            unseen = 1 - (hit & body).sum().item() / body.sum().item()
            (stated,) = outside_beam(body, spacing, fine, [angle])
            # Interpolation lets a ray touch voxels up to one voxel beside it.
            assert unseen <= stated <= unseen + 0.12

    def test_an_empty_body(self) -> None:
        with pytest.raises(ValueError, match="not empty"):
            outside_beam(torch.zeros(3, 3, 3), (1.0, 1.0, 1.0), X2CT, [0.0])
