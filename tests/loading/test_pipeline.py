"""The DALI graph against plain NumPy and SciPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import map_coordinates

from xr2ct.config import Augmentation, Data
from xr2ct.loading.order import Sample
from xr2ct.loading.pipeline import BatchPipeline

OFF = {"contrast": None, "rotation_probability": 0.0, "flip": "none"}


def run(
    volumes: np.ndarray, views: np.ndarray, samples: list[Sample], data: Data, **augmentation: Any
) -> tuple[np.ndarray, np.ndarray]:
    """(b, z, y, x) and (b, view, row, col) as they leave the graph."""
    told = Augmentation(**OFF | augmentation)
    pipeline = BatchPipeline(data, told, max_batch=len(samples), device=torch.device("cpu"))
    pipeline.submit({"ct": list(volumes)}, list(views), samples)
    found, pictures = pipeline.collect()
    pipeline.close()
    return found["ct"][:, 0].numpy(), pictures.numpy()


@pytest.fixture
def volumes() -> np.ndarray:
    """Four volumes (16, 12, 20), with the ends of int16 in each."""
    noise = np.random.default_rng(1).integers(-3000, 4000, (4, 16, 12, 20))
    noise[:, 0, 0, 0], noise[:, 0, 0, 1] = -32768, 32767
    return noise.astype(np.int16)


@pytest.fixture
def views() -> np.ndarray:
    """Four times two pictures, 30 rows by 26 columns."""
    return np.random.default_rng(2).random((4, 2, 30, 26)).astype(np.float32)


def rotated(picture: np.ndarray, angle_deg: float) -> np.ndarray:
    """Counter-clockwise as looked at, bilinear, 0 outside: sampled where each pixel came from."""
    rows, columns = picture.shape
    down, right = np.mgrid[:rows, :columns] - np.array([rows - 1, columns - 1])[:, None, None] / 2
    t = np.deg2rad(angle_deg)
    came_right = np.cos(t) * right - np.sin(t) * down
    came_down = np.sin(t) * right + np.cos(t) * down
    at = [came_down + (rows - 1) / 2, came_right + (columns - 1) / 2]
    return map_coordinates(picture.astype(np.float64), at, order=1, mode="grid-constant", cval=0.0)


def contrasted(picture: np.ndarray, factor: float) -> np.ndarray:
    mean = picture.mean(dtype=np.float64)
    return (picture - mean) * factor + mean


@pytest.mark.parametrize("window", [(-1024.0, 1476.0), (-159.5, 240.25), (-40000.0, 40000.0)])
def test_window(volumes: np.ndarray, views: np.ndarray, window: tuple[float, float]) -> None:
    low, high = window
    ct, pictures = run(volumes, views, [Sample(i, i) for i in range(4)], Data(hu_window=window))
    np.testing.assert_allclose(ct, np.clip((volumes - low) / (high - low), 0, 1), atol=1e-7)
    np.testing.assert_array_equal(pictures, views)


@pytest.mark.parametrize("window", [(-1024.0, 1476.0), (-159.5, 240.25), (-40000.0, 40000.0), (-1.0, 0.0)])
def test_every_int16_is_the_float64_figure_rounded_once(window: tuple[float, float]) -> None:
    hu = np.arange(-(2**15), 2**15, dtype=np.int16).reshape(1, 64, 32, 32)
    ct, _ = run(hu, np.ones((1, 1, 8, 8), np.float32), [Sample(0, 0)], Data(hu_window=window))
    low, high = window
    exact = np.clip((hu.astype(np.float64) - low) / (high - low), 0, 1)
    np.testing.assert_array_equal(ct, exact.astype(np.float32))


def test_minmax_is_by_volume_and_a_flat_one_is_zero(volumes: np.ndarray, views: np.ndarray) -> None:
    volumes[1] = np.clip(volumes[1], -1000, 900)
    volumes[2] = 40
    ct, _ = run(volumes, views, [Sample(i, i) for i in range(4)], Data(scaling="minmax"))
    assert not ct[2].any()
    for i in (0, 1, 3):
        v = volumes[i].astype(np.float64)
        np.testing.assert_allclose(ct[i], (v - v.min()) / (v.max() - v.min()), atol=1e-6)


def test_contrast_is_about_the_mean_of_each_picture(volumes: np.ndarray, views: np.ndarray) -> None:
    views[:, 1] += 3
    factors = (0.5, 1.0, 1.3, 1.5)
    samples = [Sample(i, i, contrast=f) for i, f in enumerate(factors)]
    ct, pictures = run(volumes, views, samples, Data(), contrast=(0.5, 1.5))
    for i, factor in enumerate(factors):
        for picture, before in zip(pictures[i], views[i], strict=True):
            np.testing.assert_allclose(picture, contrasted(before, factor), atol=2e-6)
    np.testing.assert_array_equal(ct, run(volumes, views, samples, Data())[0])


def test_rotation(volumes: np.ndarray, views: np.ndarray) -> None:
    angles = (0.0, 10.0, -7.0, 90.0)
    samples = [Sample(i, i, angle_deg=a) for i, a in enumerate(angles)]
    ct, pictures = run(volumes, views, samples, Data(), rotation_probability=0.3)
    np.testing.assert_array_equal(pictures[0], views[0])
    for i, angle in enumerate(angles):
        for picture, before in zip(pictures[i], views[i], strict=True):
            np.testing.assert_allclose(picture, rotated(before, angle), atol=1e-3)
    np.testing.assert_array_equal(ct, run(volumes, views, samples, Data())[0])


def test_a_positive_angle_lifts_the_right_side_in_every_view() -> None:
    views = np.zeros((1, 3, 41, 41), np.float32)
    views[0, :, 20, 35] = 1
    _, pictures = run(
        np.zeros((1, 4, 4, 4), np.int16), views, [Sample(0, 0, angle_deg=10)], Data(), rotation_probability=1
    )
    for picture in pictures[0]:
        row, column = np.unravel_index(picture.argmax(), picture.shape)
        assert (row, column) == (round(20 - 15 * np.sin(np.deg2rad(10))), 35)


def test_flips(volumes: np.ndarray, views: np.ndarray) -> None:
    samples = [Sample(i, i, flip=i % 2 == 1) for i in range(4)]
    plain, _ = run(volumes, views, samples, Data())
    for flip in ("patient", "xray"):
        ct, pictures = run(volumes, views, samples, Data(), flip=flip)
        for i, sample in enumerate(samples):
            step = -1 if sample.flip else 1
            np.testing.assert_array_equal(pictures[i], views[i][:, :, ::step])
            np.testing.assert_array_equal(ct[i], plain[i][:, :, :: step if flip == "patient" else 1])


def test_flip_then_rotation_then_contrast(volumes: np.ndarray, views: np.ndarray) -> None:
    samples = [Sample(i, i, 0.5 + 0.3 * i, 8.0 - 5 * i, i < 2) for i in range(4)]
    on = {"flip": "patient", "rotation_probability": 0.3, "contrast": (0.5, 1.5)}
    _, pictures = run(volumes, views, samples, Data(), **on)
    for i, sample in enumerate(samples):
        for picture, before in zip(pictures[i], views[i], strict=True):
            turned = rotated(before[:, ::-1] if sample.flip else before, sample.angle_deg)
            np.testing.assert_allclose(picture, contrasted(turned, sample.contrast), atol=2e-3)


def test_a_sample_does_not_depend_on_its_batch(volumes: np.ndarray, views: np.ndarray) -> None:
    samples = [Sample(i, i, 0.5 + 0.3 * i, 8.0 - 5 * i, i < 2) for i in range(4)]
    on = {"flip": "patient", "rotation_probability": 0.3, "contrast": (0.5, 1.5)}
    whole = run(volumes, views, samples, Data(), **on)
    for i in range(4):
        one = run(volumes[i : i + 1], views[i : i + 1], samples[i : i + 1], Data(), **on)
        for together, alone in zip(whole, one, strict=True):
            np.testing.assert_array_equal(together[i], alone[0])


def test_batches_may_be_shorter_than_the_largest(volumes: np.ndarray, views: np.ndarray) -> None:
    told = Augmentation(**OFF)
    pipeline = BatchPipeline(Data(), told, max_batch=4, device=torch.device("cpu"))
    for count in (4, 1, 3):
        samples = [Sample(i, i) for i in range(count)]
        pipeline.submit({"ct": list(volumes[:count])}, list(views[:count]), samples)
        found, pictures = pipeline.collect()
        assert (len(found["ct"]), len(pictures)) == (count, count)
    pipeline.close()
