"""Every mode against scikit-image and against closed forms."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from xr2ct.evaluation.metrics import COLUMNS, Reference, by_mode, score_volume

WIDTH = 2500.0


def noise(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    return rng.random(shape), rng.random(shape)


def structure(shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A smooth truth with a flat half, as air around a body, and a blurred, shifted, noisy prediction."""
    rng = np.random.default_rng(1)
    truth = gaussian_filter(rng.random(shape), 2)
    truth = (truth - truth.min()) / np.ptp(truth)
    truth[:, : shape[1] // 2] = 0
    prediction = gaussian_filter(np.roll(truth, 1, axis=2), 1) + 0.03 * rng.standard_normal(shape)
    return prediction, truth


PAIRS = pytest.mark.parametrize("make", [noise, structure])


def score(prediction: np.ndarray, truth: np.ndarray, **masks: np.ndarray) -> dict[str, float]:
    return score_volume(
        torch.from_numpy(prediction),
        torch.from_numpy(truth),
        WIDTH,
        {name: torch.from_numpy(mask) for name, mask in masks.items()},
    )


def slices(a: np.ndarray, axis: int) -> list[np.ndarray]:
    return list(np.moveaxis(a, axis, 0))


def ssim_by_axis(prediction: np.ndarray, truth: np.ndarray) -> list[float]:
    return [
        float(
            np.mean(
                [
                    structural_similarity(p, t, data_range=1)
                    for p, t in zip(slices(prediction, axis), slices(truth, axis), strict=True)
                ]
            )
        )
        for axis in range(3)
    ]


def psnr_by_slice(prediction: np.ndarray, truth: np.ndarray, peak: float) -> float:
    axes = [
        np.mean(
            [
                peak_signal_noise_ratio(2500 * t, 2500 * p, data_range=peak) if (p != t).any() else 100.0
                for p, t in zip(slices(prediction, axis), slices(truth, axis), strict=True)
            ]
        )
        for axis in range(3)
    ]
    return float(np.mean(axes))


@PAIRS
def test_honest_is_scikit_image(make) -> None:
    prediction, truth = make((40, 36, 47))
    got = score(prediction, truth)
    clipped = prediction.clip(0, 1)
    assert got["honest/psnr"] == pytest.approx(
        peak_signal_noise_ratio(truth, clipped, data_range=1), abs=1e-10
    )
    expected = structural_similarity(
        truth, clipped, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    assert got["honest/ssim"] == pytest.approx(expected, abs=1e-10)
    assert got["honest/mse"] == pytest.approx(np.mean((clipped - truth) ** 2), rel=1e-12)
    assert got["honest/mae"] == pytest.approx(np.mean(abs(clipped - truth)), rel=1e-12)
    assert got["honest/mae_hu"] == pytest.approx(2500 * got["honest/mae"], rel=1e-12)


@PAIRS
def test_rc2024_is_scikit_image(make) -> None:
    prediction, truth = make((40, 36, 47))
    got = score(prediction, truth)
    clipped = prediction.clip(0, 1)
    as_integers = [np.rint(2000 * v).astype(int) for v in (truth, clipped)]
    assert got["rc2024/psnr"] == pytest.approx(
        peak_signal_noise_ratio(*as_integers, data_range=4095), abs=1e-10
    )
    along = ssim_by_axis(clipped, truth)
    assert got["rc2024/ssim"] == pytest.approx((2 * along[2] + along[0]) / 3, abs=1e-10)
    assert got["rc2024/psnr"] == pytest.approx(got["honest/psnr"] + 6.2245, abs=2e-3)


@PAIRS
def test_x2ct_and_psct_are_scikit_image(make) -> None:
    prediction, truth = make((40, 36, 47))
    got = score(prediction, truth)
    clipped = prediction.clip(0, 1)
    psnr = peak_signal_noise_ratio(2500 * truth, 2500 * clipped, data_range=4095)
    assert got["x2ct_3d/psnr"] == pytest.approx(psnr, abs=1e-10)
    assert got["x2ct_3d/psnr"] == pytest.approx(got["honest/psnr"] + 4.286, abs=1e-3)
    assert got["x2ct_slice/psnr"] == pytest.approx(psnr_by_slice(clipped, truth, 4095), abs=1e-10)
    assert got["x2ct_slice/ssim"] == pytest.approx(np.mean(ssim_by_axis(clipped, truth)), abs=1e-10)
    assert got["psct/psnr"] == got["honest/psnr"]
    assert got["psct/psnr_slice"] == pytest.approx(psnr_by_slice(clipped, truth, 2500), abs=1e-10)


def test_a_slice_without_error_counts_100_db() -> None:
    truth = np.full((16, 16, 16), 0.5)
    prediction = truth.copy()
    prediction[3] += 0.1
    got = score(prediction, truth)
    seen_along_z = (15 * 100 + 20 * math.log10(4095 / 250)) / 16
    seen_across = 20 * math.log10(4095 / 250) + 10 * math.log10(16)
    assert got["x2ct_slice/psnr"] == pytest.approx((seen_along_z + 2 * seen_across) / 3, abs=1e-9)
    assert score(truth, truth)["x2ct_slice/psnr"] == 100
    assert score(truth, truth)["honest/psnr"] == math.inf
    assert score(truth, truth)["honest/ssim"] == pytest.approx(1)


def test_within_a_mask() -> None:
    prediction, truth = structure((40, 36, 47))
    mask = gaussian_filter(np.random.default_rng(2).random(truth.shape), 2) > 0.5
    clipped = prediction.clip(0, 1)
    _, map_ = structural_similarity(
        truth, clipped, data_range=1, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )
    interior = np.zeros_like(mask)
    interior[5:-5, 5:-5, 5:-5] = True
    got = score(prediction, truth, body=mask, lungs=np.zeros_like(mask))
    error = (clipped - truth)[mask]
    assert got["honest_body/mse"] == pytest.approx(np.mean(error**2), rel=1e-12)
    assert got["honest_body/psnr"] == pytest.approx(-10 * np.log10(np.mean(error**2)), abs=1e-9)
    assert got["honest_body/mae_hu"] == pytest.approx(2500 * np.mean(abs(error)), rel=1e-12)
    assert got["honest_body/ssim"] == pytest.approx(map_[mask & interior].mean(), abs=1e-10)
    assert all(math.isnan(v) for k, v in got.items() if k.startswith("honest_lungs/"))


def test_predictions_are_clipped_to_the_window_in_every_mode() -> None:
    prediction, truth = structure((20, 20, 20))
    beyond = np.where(prediction > 0.7, prediction + 3, prediction)
    assert score(beyond, truth) == score(beyond.clip(0, 1), truth)


def test_columns_are_what_is_returned() -> None:
    prediction, truth = structure((16, 16, 16))
    mask = truth > 0.3
    got = score(prediction, truth, body=mask, lungs=mask)
    assert set(got) == set(COLUMNS)
    assert by_mode(got)["psct"].keys() == {"psnr", "psnr_slice"}


def test_float32_volumes_are_scored_in_float64() -> None:
    prediction, truth = structure((32, 32, 32))
    single = score(prediction.astype(np.float32), truth.astype(np.float32))
    for name, value in score(prediction, truth).items():
        assert single[name] == pytest.approx(value, abs=1e-3 if name == "rc2024/psnr" else 1e-5, rel=1e-6)


def test_a_truth_stays_as_it_is_whatever_is_scored_against_it() -> None:
    prediction, truth = structure((20, 22, 24))
    mask = truth > 0.3
    volumes = [torch.from_numpy(v.copy()) for v in (prediction, prediction[::-1], truth, prediction)]
    reference = Reference(torch.from_numpy(truth), WIDTH, {"body": torch.from_numpy(mask)})
    together = [reference.score(volume) for volume in volumes]
    assert together == [score(volume.numpy(), truth, body=mask) for volume in volumes]
    assert together[0] == together[3] != together[1]
