"""Sharpness and truth told apart, on made volumes and on a real chest."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter

from xr2ct.cohorts.reader import read_volume_file
from xr2ct.evaluation import spectral
from xr2ct.evaluation.metrics import score_volume

WIDTH = 2500.0


def told(
    volume: np.ndarray, truth: np.ndarray, spacing: tuple[float, ...] = (5.0, 5.0, 5.0)
) -> dict[str, float]:
    reference = spectral.Reference(torch.from_numpy(truth), WIDTH, spacing)
    return {name: value.item() for name, value in reference.score(torch.from_numpy(volume)).items()}


def organs(shape: tuple[int, int, int] = (32, 32, 32)) -> np.ndarray:
    """Smooth parts with borders, and grain, on the unit interval."""
    rng = np.random.default_rng(0)
    parts = gaussian_filter(rng.random(shape), 3)
    return 0.4 * (parts > np.median(parts)) + 0.1 * rng.random(shape) + 0.2


def scrambled(truth: np.ndarray, above: float) -> np.ndarray:
    """Every frequency above a share of Nyquist is as strong as in the truth, and somewhere else."""
    spectrum = np.fft.fftn(truth)
    other = np.fft.fftn(np.random.default_rng(1).random(truth.shape))
    frequency = np.sqrt(sum(f**2 for f in np.meshgrid(*map(np.fft.fftfreq, truth.shape), indexing="ij")))
    moved = abs(spectrum) * np.exp(1j * np.angle(other))
    return np.fft.ifftn(np.where(frequency > above / 2, moved, spectrum)).real


def correlation_by_shell(volume: np.ndarray, truth: np.ndarray) -> list[float]:
    """Of cubes with an even side, shell by shell."""
    n = len(truth)
    window = np.hanning(n)
    taper = window[:, None, None] * window[:, None] * window
    a, b = (np.fft.fftn((v - v.mean()) * taper) for v in (volume, truth))
    index = np.rint(np.sqrt(sum(f**2 for f in np.meshgrid(*[np.fft.fftfreq(n, 1 / n)] * 3, indexing="ij"))))
    found = []
    for k in range(1, n // 2 + 1):
        at = index == k
        powers = (abs(a[at]) ** 2).sum() * (abs(b[at]) ** 2).sum()
        found.append(float((a[at] * b[at].conj()).sum().real / np.sqrt(powers)))
    return found


def test_it_is_the_plain_definition() -> None:
    truth = organs((24, 24, 24))
    volume = gaussian_filter(np.roll(truth, 1, 2), 0.7)
    shells = correlation_by_shell(volume, truth)
    got = told(volume, truth)
    assert got["fsc"] == pytest.approx(np.mean(shells), abs=1e-9)
    first = next(k for k, c in enumerate(shells, 1) if c < 0.5)
    assert 2 * 5 * 12 / first < got["resolution_mm"] < 2 * 5 * 12 / (first - 1)


def test_the_truth_is_as_sharp_and_as_true_as_itself() -> None:
    for shape in ((32, 32, 32), (16, 27, 20)):
        got = told(organs(shape), organs(shape))
        assert got == pytest.approx({"sharpness": 1, "lsd_db": 0, "fsc": 1, "resolution_mm": 10}, abs=1e-9)


def test_a_blurred_truth_is_true_and_not_sharp() -> None:
    truth = organs()
    got = told(gaussian_filter(truth, 1, mode="wrap"), truth)
    assert got["sharpness"] < 0.05 and got["lsd_db"] > 10
    assert got["fsc"] > 0.95 and got["resolution_mm"] < 11


def test_detail_in_other_places_is_sharp_and_not_true() -> None:
    truth = organs()
    got = told(scrambled(truth, above=0.25), truth)
    # It lies all over the volume now, of which the window sees the middle.
    assert 0.6 < got["sharpness"] < 1.5 and got["lsd_db"] < 2
    assert got["fsc"] < 0.4
    # True to a quarter of the grid's frequency: 40 mm.
    assert 25 < got["resolution_mm"] < 50
    moved = told(np.roll(truth, (5, 5, 5), (0, 1, 2)), truth)
    assert 0.6 < moved["sharpness"] < 1.5 and abs(moved["fsc"]) < 0.2


def test_grain_is_sharper_than_the_truth() -> None:
    truth = organs()
    got = told(truth + 0.1 * np.random.default_rng(3).standard_normal(truth.shape), truth)
    assert got["sharpness"] > 2 and got["lsd_db"] > 2 and got["fsc"] < 0.9


def test_strength_and_level_are_nothing_to_the_correlation() -> None:
    truth = organs()
    got = told(0.5 * truth + 0.3, truth)
    assert got["fsc"] == pytest.approx(1) and got["resolution_mm"] == pytest.approx(10)
    assert got["sharpness"] == pytest.approx(0.25) and got["lsd_db"] == pytest.approx(10 * math.log10(4))


def test_a_volume_without_detail_has_numbers() -> None:
    truth = organs()
    flat = told(np.full_like(truth, 0.4), truth)
    assert flat["fsc"] == pytest.approx(0, abs=1e-6) and flat["sharpness"] < 1e-3
    assert all(map(math.isfinite, flat.values()))
    nothing = told(np.zeros((16, 16, 16)), np.zeros((16, 16, 16)))
    assert nothing["sharpness"] == 1 and nothing["lsd_db"] == 0


def test_lengths_follow_the_voxels() -> None:
    truth = organs((16, 32, 32))
    volume = scrambled(truth, above=0.3)
    fine, twice = told(volume, truth, (5, 5, 5)), told(volume, truth, (10, 10, 10))
    assert twice["resolution_mm"] == pytest.approx(2 * fine["resolution_mm"])
    assert told(truth, truth, (10, 5, 5))["resolution_mm"] == 20  # what the coarsest axis can hold


def test_a_real_chest(real_data: Path) -> None:
    """Blurred, and with its detail scrambled: PSNR likes the blur, and the spectrum says what is what."""
    native = read_volume_file(real_data / "chest" / "ct-64" / "ct-64.nrrd")
    truth = np.clip((native.hu.astype(float) + 1024) / WIDTH, 0, 1)
    made = {"blurred": gaussian_filter(truth, 1), "scrambled": scrambled(truth, above=0.5)}
    got = {
        name: score_volume(torch.from_numpy(volume), torch.from_numpy(truth), WIDTH, {}, native.spacing_mm)
        for name, volume in made.items()
    }
    assert got["blurred"]["honest/psnr"] > got["scrambled"]["honest/psnr"]
    assert got["blurred"]["spectral/sharpness"] < 0.1 < 0.5 < got["scrambled"]["spectral/sharpness"] < 1.5
    assert got["scrambled"]["spectral/fsc"] < 0.6 < 0.9 < got["blurred"]["spectral/fsc"]
    assert got["blurred"]["perceptual/gmsd"] < got["scrambled"]["perceptual/gmsd"]
    assert got["scrambled"]["spectral/resolution_mm"] > 1.3 * got["blurred"]["spectral/resolution_mm"]
