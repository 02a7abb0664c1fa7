"""Pose and table against the projector in that pose, and what a training sample's machine depends on."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
import torch

from xr2ct.config import Augmentation, Data, Detector, validate
from xr2ct.config import Pose as Told
from xr2ct.errors import UserError
from xr2ct.loading.detector import Response, respond
from xr2ct.loading.loader import Loader, sequential
from xr2ct.loading.pose import TABLE_MM, Pose, Table, draw_pose, draw_table, table_integrals, warp
from xr2ct.loading.reproject import Reprojector
from xr2ct.methods.base import Batch
from xr2ct.projection.geometry import Geometry
from xr2ct.projection.projector import WATER_PER_MM, attenuation, project
from xr2ct.seeds import generator
from xr2ct.store import Store

CPU = torch.device("cpu")
CUBE_MM, SIDE = 320.0, 32
SPACING = CUBE_MM / SIDE
GEOMETRY = Geometry("x2ct", sad_mm=541.0, sid_mm=949.0, detector_mm=700.0, pixels=96)
AS_TOLD = Pose(GEOMETRY.sad_mm, GEOMETRY.sid_mm)
MakeStore = Callable[..., Store]


def line_integrals(mu: np.ndarray, geometry: Geometry, angle: float, spacing: float = SPACING) -> np.ndarray:
    return project(torch.from_numpy(mu)[None], (spacing,) * 3, geometry, [angle])[0, 0].numpy()


def marker(z_mm: float, y_mm: float, x_mm: float) -> np.ndarray:
    """A blob there, attenuating (z, y, x)."""
    mm = (np.arange(SIDE) - (SIDE - 1) / 2) * SPACING
    squares = (mm[:, None, None] - z_mm) ** 2 + (mm[:, None] - y_mm) ** 2 + (mm - x_mm) ** 2
    return (0.02 * np.exp(-squares / 2 / 22**2)).astype(np.float32)


def centroid_mm(picture: np.ndarray) -> np.ndarray:
    """Down and right of the centre, on the detector."""
    mm = (np.arange(GEOMETRY.pixels) - (GEOMETRY.pixels - 1) / 2) * GEOMETRY.pixel_mm
    return np.array([(picture.sum(1) * mm).sum(), (picture.sum(0) * mm).sum()]) / picture.sum()


@pytest.fixture(scope="module")
def mu() -> np.ndarray:
    """Blobs at different depths, lopsided, and free of the cube's faces: what interpolates well."""
    return marker(60, -70, 30) + marker(-50, 60, -60) + marker(10, 0, 70) + marker(-20, 20, 0)


def reprojector(mu: np.ndarray) -> Reprojector:
    return Reprojector(mu / WATER_PER_MM * 1000 - 1000, CUBE_MM, GEOMETRY)


def relative(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def test_another_sid_magnifies_by_the_ratio() -> None:
    view = line_integrals(marker(70, 0, -60), GEOMETRY, 0.0)
    for sid in (880.0, 1100.0):
        pose = Pose(sid - 408, sid)
        ratio = sid / (sid - 408) / GEOMETRY.magnification
        np.testing.assert_allclose(
            centroid_mm(warp(view, pose, GEOMETRY)), centroid_mm(view) * ratio, atol=0.5
        )


def test_a_shift_moves_by_its_magnified_millimetres() -> None:
    view = line_integrals(marker(10, 0, 20), GEOMETRY, 0.0)
    moved = warp(view, replace(AS_TOLD, right_mm=12.0, down_mm=-25.0), GEOMETRY)
    pixels = (centroid_mm(moved) - centroid_mm(view)) / GEOMETRY.pixel_mm
    expected = np.array([-25.0, 12.0]) * GEOMETRY.magnification / GEOMETRY.pixel_mm
    np.testing.assert_allclose(pixels, expected, atol=0.05)


def test_a_roll_lifts_the_right_side() -> None:
    view = line_integrals(marker(0, 0, 80), GEOMETRY, 0.0)
    down, right = centroid_mm(warp(view, replace(AS_TOLD, roll_deg=10.0), GEOMETRY))
    far = centroid_mm(view)[1]
    t = np.deg2rad(10)
    np.testing.assert_allclose([down, right], [-far * np.sin(t), far * np.cos(t)], atol=0.5)


@pytest.mark.parametrize("angle", [0.0, 90.0, 180.0])
def test_projected_again_is_the_projection_in_that_pose(mu: np.ndarray, angle: float) -> None:
    """Against the projector at another SID, distance and angle, and of a volume moved by whole voxels."""
    again = reprojector(mu)
    view = line_integrals(mu, GEOMETRY, angle)
    nearer = Geometry("nearer", 441.0, 849.0, GEOMETRY.detector_mm, GEOMETRY.pixels)
    further = Geometry("further", 571.0, 949.0, GEOMETRY.detector_mm, GEOMETRY.pixels)
    down = np.roll(mu, -2, axis=0)
    poses = {
        Pose(441.0, 849.0): line_integrals(mu, nearer, angle),
        replace(AS_TOLD, away_mm=30.0): line_integrals(mu, further, angle),
        replace(AS_TOLD, turn_deg=8.0): line_integrals(mu, GEOMETRY, angle - 8),
        replace(AS_TOLD, down_mm=2 * SPACING): line_integrals(down, GEOMETRY, angle),
    }
    for pose, true in poses.items():
        found = again.take(view, pose, angle)
        assert relative(found, true) < 0.02, pose
        assert relative(found, true) < 0.5 * relative(warp(view, pose, GEOMETRY), true), pose


def test_projected_again_is_moved_in_the_plane_as_the_picture_is() -> None:
    """What lies at the isocentre's depth is moved alike by both, SID, roll and shift together."""
    thin = marker(30, 0, 60)
    again = reprojector(thin)
    pose = Pose(500.0, 908.0, right_mm=20, down_mm=10, roll_deg=20)
    view = line_integrals(thin, GEOMETRY, 0.0)
    moved = warp(view, pose, GEOMETRY)
    np.testing.assert_allclose(centroid_mm(again.project(pose, 0.0)), centroid_mm(moved), atol=1.0)


def test_tilting_away_lowers_what_is_above_and_moves_it_from_the_tube() -> None:
    above = reprojector(marker(100, 0, 0))
    down, right = centroid_mm(above.project(replace(AS_TOLD, tilt_deg=30.0), 0.0))
    t = np.deg2rad(30)
    height, depth = 100 * np.cos(t), 100 * np.sin(t)
    assert down == pytest.approx(-height * 949 / (541 + depth), abs=2)
    assert right == pytest.approx(0, abs=0.5)


@pytest.mark.parametrize("angle", [0.0, 45.0, 90.0, 180.0])
def test_the_table_is_the_projection_of_a_slab(angle: float) -> None:
    side, spacing = 132, 5.0
    mm = (np.arange(side) - (side - 1) / 2) * spacing
    slab = np.zeros((side, side, side), np.float32)
    rows = (mm > 130) & (mm < 130 + TABLE_MM)
    columns = abs(mm) < 265
    slab[:, np.ix_(rows, columns)[0], np.ix_(rows, columns)[1]] = WATER_PER_MM * 6 / TABLE_MM
    geometry = Geometry("seen", 1600.0, 2000.0, 430.0, 48)
    found = table_integrals(Table(6.0, 130.0), Pose(1600.0, 2000.0), angle, geometry)
    true = line_integrals(slab, geometry, angle, spacing)
    assert relative(found, true) < 0.12
    assert found.sum() == pytest.approx(true.sum(), rel=0.02)
    if angle == 0:
        assert found[24, 24] == pytest.approx(WATER_PER_MM * 6, rel=1e-3)


def test_draws_stay_in_what_is_told() -> None:
    told = Told(sid_mm=(900, 1000), shift_mm=10, rotation_deg=3, table=(2, 8), table_probability=0.5)
    poses = [draw_pose(told, GEOMETRY, generator(p)) for p in range(400)]
    for name, most in (("right_mm", 10), ("down_mm", 10), ("away_mm", 10), ("roll_deg", 3)):
        values = np.array([getattr(p, name) for p in poses])
        assert -most <= values.min() < -0.95 * most
        assert 0.95 * most < values.max() <= most
    assert {p.turn_deg for p in poses} == {0.0}
    assert all(900 <= p.sid_mm <= 1000 for p in poses)
    assert all(p.sid_mm - p.sad_mm == pytest.approx(408) for p in poses)
    tables = [draw_table(told, generator(p)) for p in range(400)]
    assert np.mean([t is None for t in tables]) == pytest.approx(0.5, abs=0.1)
    assert all(2 <= t.water_mm <= 8 and 120 <= t.y_mm <= 170 for t in tables if t)


EVERY = Augmentation(
    detector=Detector(
        scatter=(0.2, 1), grid=(0, 0.2), exposure=(1e3, 1e5), electronic=(0, 3), blur_mm=(0, 2),
        gamma=(0.7, 1.4), window=(0, 2), collimation=(0, 0.2),
    ),
    pose=Told(sid_mm=(900, 1000), shift_mm=10, rotation_deg=3, turn_deg=3, reproject=16, table=(2, 8)),
)  # fmt: skip


def take(count: int, store: Store, augmentation: Augmentation, **changes: Any) -> list[Batch]:
    told: dict[str, Any] = {"batch": 4, "accumulation": 1, "rank": 0, "world_size": 1, "seed": 5}
    told |= {"data": Data(size=16)} | changes
    data = told.pop("data")
    loader = Loader(store, store.cases, data, augmentation, device=CPU, **told)
    batches = list(islice(loader, count))
    loader.close()
    return batches


def views(batches: list[Batch]) -> torch.Tensor:
    return torch.cat([b.views for b in batches])


def test_any_ranks_batch_size_and_resume_take_the_same_pictures(store: Store) -> None:
    alone = views(take(3, store, EVERY))
    ranks = [take(3, store, EVERY, world_size=2, rank=rank) for rank in range(2)]
    assert torch.equal(views([b for parts in zip(*ranks, strict=True) for b in parts]), alone)
    assert torch.equal(views(take(6, store, EVERY, batch=2)), alone)
    assert torch.equal(views(take(2, store, EVERY, first_batch=1)), alone[4:])
    assert torch.isfinite(alone).all()


def test_what_is_looked_for_and_every_other_draw_stay(store: Store) -> None:
    plain, changed = take(3, store, Augmentation()), take(3, store, EVERY)
    assert all(torch.equal(a.ct, b.ct) and a.cases == b.cases for a, b in zip(plain, changed, strict=True))
    assert not torch.equal(views(plain), views(changed))
    seldom = EVERY.model_copy(
        update={
            "detector": EVERY.detector.model_copy(update={"probability": 1e-12}),
            "pose": EVERY.pose.model_copy(update={"probability": 1e-12}),
        }
    )
    assert torch.equal(views(take(3, store, seldom)), views(plain))


def test_each_place_in_the_sequence_has_a_machine_of_its_own(make_store: MakeStore) -> None:
    one = make_store(1)
    told = Augmentation(contrast=None, rotation_deg=0, flip="none", detector=Detector(exposure=(1e3, 1e3)))
    first, second = take(2, one, told, batch=1)
    assert first.cases == second.cases
    assert not torch.equal(first.views, second.views)


def test_a_flipped_patient_lies_on_the_same_table(make_store: MakeStore) -> None:
    """Mirrored views of a patient and table are those of the mirrored patient on that table."""
    angles, geometry = (0.0, 90.0, 270.0), replace(GEOMETRY, pixels=24)
    noise = np.random.default_rng(3).integers(-1000, 1000, (1, 16, 16, 16)).astype(np.int16)
    mu = attenuation(torch.from_numpy(noise)).numpy()
    stored = np.stack([[line_integrals(m, geometry, a, 20.0) for a in angles] for m in mu])
    store = make_store(1, angles, noise, stored, geometry)
    told = Augmentation(
        contrast=None, rotation_deg=0, flip_probability=1,
        pose=Told(table=(5, 5), table_y_mm=(140, 140), table_probability=1),
    )  # fmt: skip
    (batch,) = take(1, store, told, batch=1, data=Data(size=16, views=(90, 0), xray_scale=1.0))
    mirrored = np.ascontiguousarray(mu[0, :, :, ::-1])
    for found, angle in zip(batch.views[0].numpy(), (90.0, 0.0), strict=True):
        table = table_integrals(Table(5, 140), Pose(geometry.sad_mm, geometry.sid_mm), angle, geometry)
        np.testing.assert_allclose(found, line_integrals(mirrored, geometry, angle, 20.0) + table, atol=2e-3)


def test_sub_volumes_come_with_the_whole_patient_in_his_pose(make_store: MakeStore) -> None:
    noise = np.random.default_rng(0).integers(-1000, 1000, (6, 24, 24, 24)).astype(np.int16)
    store = make_store(
        6, volumes=noise, coarser=noise[:, ::3, ::3, ::3].repeat(2, 1).repeat(2, 2).repeat(2, 3)
    )
    whole = take(1, store, EVERY, data=Data(size=24))
    parts = take(1, store, EVERY, data=Data(size=24, window=16))
    assert parts[0].ct.shape[-1] == 16
    assert torch.equal(views(parts), views(whole))


def test_evaluation_sees_x_rays_as_they_are(store: Store) -> None:
    data = Data(size=16, xray_scale=1.0)
    for batch in sequential(store, store.cases, data, batch=2, device=CPU):
        for case, found in zip(batch.cases, batch.views.numpy(), strict=True):
            stored = store.xray(next(c for c in store.cases if c.id == case), "x2ct", data.views)
            np.testing.assert_array_equal(found, stored)


def test_wrong_poses_are_refused(store: Store) -> None:
    with pytest.raises(UserError, match=r"turn_deg: .*reproject"):
        validate(Told, {"turn_deg": 5}, "augmentation.pose")
    with pytest.raises(UserError, match=r"sid_mm: expected \[least, most\]"):
        validate(Told, {"sid_mm": [1000, 900]}, "augmentation.pose")
    with pytest.raises(UserError, match=r"sid_mm: 500 puts the tube into the patient.*at least 728"):
        take(1, store, Augmentation(pose=Told(sid_mm=(500, 900))))
    with pytest.raises(UserError, match=r"no volumes of augmentation.pose.reproject 20; valid: 16"):
        take(1, store, Augmentation(pose=Told(sid_mm=(900, 1000), reproject=20)))


@pytest.mark.skipif("XR2CT_REAL_DATA" not in os.environ, reason="XR2CT_REAL_DATA is unset")
def test_on_a_real_chest() -> None:
    """A radiograph's beam: at 1600 mm instead of 1800 mm a picture moved in its plane is within 3 %; scatter
    takes contrast from ribs and lungs, and everything together leaves a chest that can be recognised."""
    image = sitk.ReadImage(str(Path(os.environ["XR2CT_REAL_DATA"], "chest", "ct-64", "ct-64.nrrd")))
    hu = sitk.GetArrayFromImage(image).astype(np.float32)[8:72]
    chest = Geometry("chest-1800", 1600.0, 1800.0, 430.0, 128)
    mu, spacing = attenuation(torch.from_numpy(hu)).numpy(), 4.17
    view = line_integrals(mu, chest, 180.0, spacing)
    nearer = line_integrals(mu, replace(chest, sad_mm=1400.0, sid_mm=1600.0), 180.0, spacing)
    moved = warp(view, Pose(1400.0, 1600.0), chest)
    assert relative(moved, nearer) < 0.03 < relative(view, nearer)
    noise = generator(0, "noise")
    middle = np.s_[32:96, 32:96]
    scattered = respond(view, Response(scatter=2.0), chest.pixel_mm, noise)
    assert scattered[middle].std() < 0.75 * view[middle].std()
    every = Response(
        scatter=0.5,
        grid=0.1,
        grid_lines=0.02,
        exposure=1e5,
        electronic=3,
        blur_mm=1,
        gamma=0.8,
        window=(1, 1),
    )
    found = respond(view, every, chest.pixel_mm, noise)
    assert np.isfinite(found).all()
    assert np.corrcoef(found[middle].ravel(), view[middle].ravel())[0, 1] > 0.9
