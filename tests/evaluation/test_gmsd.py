"""GMSD against the publication's formulas, written out for a slice."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from scipy.signal import convolve2d

from xr2ct.evaluation import gmsd


def of_a_slice(distorted: np.ndarray, reference: np.ndarray) -> float:
    """Of grey levels from 0 to 255."""
    prewitt = np.array([[1, 0, -1]] * 3) / 3
    magnitudes = []
    for picture in (reference, distorted):
        rows, columns = (side // 2 * 2 for side in picture.shape)
        small = convolve2d(picture[:rows, :columns], np.full((2, 2), 1 / 4), mode="valid")[::2, ::2]
        across, down = (convolve2d(small, kernel, mode="valid") for kernel in (prewitt, prewitt.T))
        magnitudes.append(np.hypot(across, down))
    r, d = magnitudes
    return float(((2 * r * d + 170) / (r**2 + d**2 + 170)).std(ddof=1))


def told(volume: np.ndarray, truth: np.ndarray) -> float:
    return gmsd.Reference(torch.from_numpy(truth)).score(torch.from_numpy(volume)).item()


def parts(shape: tuple[int, int, int]) -> np.ndarray:
    smooth = gaussian_filter(np.random.default_rng(0).random(shape), 2)
    return 0.2 + 0.5 * (smooth > 0.5)


@pytest.mark.parametrize("shape", [(16, 16, 16), (20, 17, 23)])
def test_it_is_the_published_index_of_slices(shape: tuple[int, int, int]) -> None:
    truth = parts(shape)
    volume = truth + 0.1 * np.random.default_rng(1).random(shape)
    axes = [
        np.mean(
            [
                of_a_slice(255 * v, 255 * t)
                for v, t in zip(np.moveaxis(volume, axis, 0), np.moveaxis(truth, axis, 0), strict=True)
            ]
        )
        for axis in range(3)
    ]
    assert told(volume, truth) == pytest.approx(np.mean(axes), abs=1e-12)


def test_edges_count_and_brightness_does_not() -> None:
    truth = parts((24, 24, 24))
    assert told(truth, truth) == 0
    assert told(truth + 0.1, truth) == pytest.approx(0, abs=1e-9)
    by_blur = [told(gaussian_filter(truth, sigma), truth) for sigma in (0.5, 1, 2)]
    assert 0 < by_blur[0] < by_blur[1] < by_blur[2]
